#include "qianli/dist/device_side.h"

#include <fmt/format.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include <algorithm>
#include <exception>

namespace qianli::dist {

DeviceSide::DeviceSide(DeviceCommon common, c10::intrusive_ptr<c10d::Store> store, std::string name,
                       std::vector<int64_t> ranks, int64_t rank,
                       config::CommunicatorOptions options)
    : common_(std::move(common)),
      store_(std::move(store)),
      name_(std::move(name)),
      ranks_(std::move(ranks)),
      rank_(rank),
      options_(options) {
  const Communicator all{.store = c10::make_intrusive<c10d::PrefixStore>("device", store_),
                         .rank = rank_,
                         .size = std::ssize(ranks_),
                         .name = name_,
                         .options = options_};
  collectives_ = open(all, ranks_, [](c10d::Backend& backend, at::Tensor token) {
    std::vector<at::Tensor> tensors = {std::move(token)};
    return backend.allreduce(tensors);
  });
}

DeviceSide::~DeviceSide() {
  try {
    // What is on its way arrives, unless the rank leaves the others alone anyway.
    if (std::uncaught_exceptions() == 0) common_.watch->drain();
    for (const auto& [ends, route] : routes_) route->abort();
    if (collectives_) collectives_->abort();
  } catch (const std::exception&) {
    // The communicators end with the process.
  }
}

DeviceSide::Backend DeviceSide::open(
    const Communicator& communicator, const std::vector<int64_t>& ranks,
    std::function<c10::intrusive_ptr<c10d::Work>(c10d::Backend&, at::Tensor)> warm_up) {
  const auto made = std::make_shared<Backend>();
  // The libraries wait without end for a rank that does not come.
  common_.activity->wait_while_heard(
      ranks, common_.deadline,
      [made, communicator, warm_up = std::move(warm_up), transport = common_.transport] {
        *made = transport->open(communicator);
        const at::Tensor token = transport->token();
        warm_up(**made, token)->wait();
        token.cpu();
      });
  common_.watch->keep(*made);
  return *made;
}

c10d::Backend& DeviceSide::route(Route route) const {
  const auto found = routes_.find({route.from, route.to});
  TORCH_CHECK(found != routes_.end(), "[dist] expected an open route from place ", route.from,
              " to ", route.to, " of ", name_, " for a message on the device, got none");
  return *found->second;
}

void DeviceSide::open_routes(std::vector<Route> routes) {
  // In an order that all agree on: whoever waits for another to open one waits for one that comes
  // before, so no two wait for each other.
  std::sort(routes.begin(), routes.end());
  for (const auto& route : routes) {
    if ((route.from != rank_ && route.to != rank_) || route.from == route.to) continue;
    if (routes_.contains({route.from, route.to})) continue;
    const bool sends = route.from == rank_;
    const std::string name = fmt::format("{} {} to {}", name_, route.from, route.to);
    const std::vector<int64_t> ends = {ranks_[static_cast<size_t>(route.from)],
                                       ranks_[static_cast<size_t>(route.to)]};
    Backend backend =
        open({.store = c10::make_intrusive<c10d::PrefixStore>(name, store_),
              .rank = sends ? 0 : 1,
              .size = 2,
              .name = name,
              .is_route = true,
              .options = options_},
             ends, [sends](c10d::Backend& communicator, at::Tensor token) {
               std::vector<at::Tensor> tensors = {std::move(token)};
               return sends ? communicator.send(tensors, 1, 0) : communicator.recv(tensors, 0, 0);
             });
    routes_.emplace(std::pair(route.from, route.to), std::move(backend));
  }
}

}  // namespace qianli::dist
