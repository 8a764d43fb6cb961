#include "qianli/dist/group.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <functional>
#include <numeric>

#include "qianli/base/trace.h"
#include "qianli/dist/group_state.h"

namespace qianli::dist {
namespace {

c10d::ReduceOp::RedOpType operation(Reduction reduction) {
  switch (reduction) {
    case Reduction::kSum:
      return c10d::ReduceOp::SUM;
    case Reduction::kAverage:
      return c10d::ReduceOp::AVG;
    case Reduction::kMax:
      return c10d::ReduceOp::MAX;
    case Reduction::kMin:
      return c10d::ReduceOp::MIN;
  }
  return c10d::ReduceOp::SUM;
}

double bytes_of(const at::Tensor& values) { return static_cast<double>(values.nbytes()); }

}  // namespace

Group::Group() : state_(std::make_shared<State>()) {}

int64_t Group::rank() const { return state_->rank; }
int64_t Group::size() const { return static_cast<int64_t>(state_->ranks.size()); }
const std::vector<int64_t>& Group::ranks() const { return state_->ranks; }
const std::string& Group::name() const { return state_->name; }

Traffic Group::traffic() const {
  const std::lock_guard lock(state_->mutex);
  return state_->traffic;
}

namespace {

// Shows how long it is on its way, whoever waits for it. Of works that do not say when they have
// ended (Gloo's reduce_scatter, and all of devices): until it is waited for, or the device has come
// past it, by the function returned.
std::function<void()> record(c10d::Work& work, bool on_device, std::string name) {
  trace::Recorder* to = trace::recorder();
  if (!to) return {};
  if (on_device) return to->travel(std::move(name));
  c10::intrusive_ptr<c10::ivalue::Future> future;
  try {
    future = work.getFuture();
  } catch (const c10::Error&) {
    return to->travel(std::move(name));
  }
  if (!future) return {};
  future->addCallback([end = to->travel(std::move(name))](c10::ivalue::Future&) { end(); });
  return {};
}

}  // namespace

Group::Carrier Group::State::carrier(const at::Tensor& values) const {
  if (on_device(values)) return {.backend = &device->collectives(), .on_device = true};
  TORCH_CHECK(values.is_cpu(), "[dist] expected a tensor of the host for the group ", name,
              ", which has no communicator for devices, got one on ", values.device());
  return {.backend = host.get()};
}

Group::Carrier Group::State::carrier(const at::Tensor& values, Route route, int64_t tag) const {
  if (on_device(values))
    return {
        .backend = &device->route(route), .on_device = true, .peer = route.from == rank ? 1 : 0};
  Carrier carrier = this->carrier(values);
  carrier.peer = static_cast<int>(route.from == rank ? route.to : route.from);
  carrier.tag = static_cast<int>(tag);
  return carrier;
}

template <class Start>
Pending Group::start(const char* what, const at::Tensor& values, double bytes,
                     const Carrier& carrier, const Start& start) const {
  TORCH_CHECK(values.is_contiguous(), "[dist] expected a contiguous tensor for ", what,
              ", got strides ", values.strides(), " of ", values.sizes());
  if (state_->watch) state_->watch->check();
  int64_t number = 0;
  {
    const std::lock_guard lock(state_->mutex);
    number = ++state_->traffic.collectives;
    state_->traffic.bytes += bytes;
  }
  auto pending = std::make_shared<Pending::State>();
  pending->group = state_;
  pending->on_device = carrier.on_device;
  pending->what = fmt::format("{} {} of {} [{}]", what, number, toString(values.scalar_type()),
                              fmt::join(values.sizes(), ", "));
  try {
    pending->work = start(*carrier.backend, pending->tensors);
    pending->waited =
        record(*pending->work, carrier.on_device,
               fmt::format("{} {} ({} KiB)", what, state_->name, values.nbytes() >> 10));
  } catch (const std::exception& error) {
    throw state_->lost(pending->what, first_line(error.what()));
  }
  return Pending(std::move(pending));
}

void Group::all_reduce(const at::Tensor& values, Reduction reduction) const {
  start_all_reduce(values, reduction).wait();
}

Pending Group::start_all_reduce(const at::Tensor& values, Reduction reduction) const {
  if (alone() || values.numel() == 0) return {};
  const auto k = static_cast<double>(size());
  return start("all_reduce", values, 2 * bytes_of(values) * (k - 1) / k, state_->carrier(values),
               [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
                 tensors = {values};
                 c10d::AllreduceOptions options;
                 options.reduceOp = operation(reduction);
                 return backend.allreduce(tensors, options);
               });
}

at::Tensor Group::all_gather(const at::Tensor& part) const {
  if (alone()) return part;
  auto sizes = part.sizes().vec();
  sizes[0] *= size();
  const at::Tensor whole = at::empty(sizes, part.options());
  start_all_gather(whole, part).wait();
  return whole;
}

Pending Group::start_all_gather(const at::Tensor& whole, const at::Tensor& part) const {
  TORCH_CHECK(whole.numel() == part.numel() * size(), "[dist] expected all_gather into ", size(),
              " times ", part.sizes(), ", got ", whole.sizes());
  if (alone()) {
    whole.view(part.sizes()).copy_(part);
    return {};
  }
  if (part.numel() == 0) return {};
  const auto k = static_cast<double>(size());
  return start("all_gather", part, bytes_of(part) * (k - 1), state_->carrier(part),
               [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
                 tensors = {whole, part};
                 return backend._allgather_base(tensors[0], tensors[1]);
               });
}

at::Tensor Group::reduce_scatter(const at::Tensor& whole, Reduction reduction) const {
  if (alone()) return whole;
  auto sizes = whole.sizes().vec();
  TORCH_CHECK(sizes[0] % size() == 0, "[dist] expected rows that ", size(),
              " ranks can share evenly for reduce_scatter, got ", sizes[0]);
  sizes[0] /= size();
  const at::Tensor part = at::empty(sizes, whole.options());
  start_reduce_scatter(part, whole, reduction).wait();
  return part;
}

Pending Group::start_reduce_scatter(const at::Tensor& part, const at::Tensor& whole,
                                    Reduction reduction) const {
  TORCH_CHECK(whole.numel() == part.numel() * size(), "[dist] expected reduce_scatter of ", size(),
              " times ", part.sizes(), ", got ", whole.sizes());
  if (alone()) {
    part.copy_(whole.view(part.sizes()));
    return {};
  }
  if (part.numel() == 0) return {};
  const auto k = static_cast<double>(size());
  return start("reduce_scatter", whole, bytes_of(whole) * (k - 1) / k, state_->carrier(whole),
               [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
                 tensors = {part, whole};
                 c10d::ReduceScatterOptions options;
                 options.reduceOp = operation(reduction);
                 return backend._reduce_scatter_base(tensors[0], tensors[1], options);
               });
}

at::Tensor Group::all_to_all(const at::Tensor& rows, const std::vector<int64_t>& sent,
                             const std::vector<int64_t>& received) const {
  const auto ranks = static_cast<size_t>(size());
  TORCH_CHECK(sent.size() == ranks && received.size() == ranks, "[dist] expected ", ranks,
              " counts of rows for all_to_all, got ", sent.size(), " and ", received.size());
  TORCH_CHECK(rows.size(0) == std::accumulate(sent.begin(), sent.end(), int64_t{0}),
              "[dist] expected as many rows as are sent, got ", rows.size(0));
  if (alone()) return rows;
  auto sizes = rows.sizes().vec();
  sizes[0] = std::accumulate(received.begin(), received.end(), int64_t{0});
  const at::Tensor out = at::empty(sizes, rows.options());
  const double row_bytes = bytes_of(rows) / static_cast<double>(std::max<int64_t>(rows.size(0), 1));
  const auto others = static_cast<double>(rows.size(0) - sent[static_cast<size_t>(state_->rank)]);
  start("all_to_all", rows, row_bytes * others, state_->carrier(rows),
        [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
          tensors = {out, rows};
          std::vector<int64_t> out_rows = received, in_rows = sent;
          return backend.alltoall_base(tensors[0], tensors[1], out_rows, in_rows);
        })
      .wait();
  return out;
}

void Group::broadcast(const at::Tensor& values, int64_t root) const {
  if (alone() || values.numel() == 0) return;
  start("broadcast", values, state_->rank == root ? bytes_of(values) : 0.0, state_->carrier(values),
        [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
          tensors = {values};
          c10d::BroadcastOptions options;
          options.rootRank = root;
          return backend.broadcast(tensors, options);
        })
      .wait();
}

void Group::open_routes(const std::vector<Route>& routes) const {
  if (!state_->device) return;
  const Activity::Waiting waiting(state_->activity.get(),
                                  "the others to open the routes of " + state_->where());
  try {
    state_->device->open_routes(routes);
  } catch (const std::exception& error) {
    throw state_->lost("opening the routes", first_line(error.what()));
  }
}

Pending Group::start_send(const at::Tensor& values, int64_t peer, int64_t tag) const {
  TORCH_CHECK(peer >= 0 && peer < size() && peer != rank(), "[dist] expected another rank of ",
              size(), " to send to, got ", peer);
  const Carrier carrier = state_->carrier(values, {rank(), peer}, tag);
  return start("send", values, bytes_of(values), carrier,
               [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
                 tensors = {values};
                 return backend.send(tensors, carrier.peer, carrier.tag);
               });
}

Pending Group::start_receive(const at::Tensor& values, int64_t peer, int64_t tag) const {
  TORCH_CHECK(peer >= 0 && peer < size() && peer != rank(), "[dist] expected another rank of ",
              size(), " to receive from, got ", peer);
  const Carrier carrier = state_->carrier(values, {peer, rank()}, tag);
  return start("receive", values, 0.0, carrier,
               [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
                 tensors = {values};
                 return backend.recv(tensors, carrier.peer, carrier.tag);
               });
}

void Group::barrier() const {
  if (alone()) return;
  const at::Tensor token = at::empty({0});
  start("barrier", token, 0.0, {.backend = state_->host.get()},
        [&](c10d::Backend& backend, std::vector<at::Tensor>&) { return backend.barrier(); })
      .wait();
}

}  // namespace qianli::dist
