#include "qianli/nn/expert_exchange.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

#include "qianli/plan/model_part.h"

namespace qianli::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Way = ExpertExchange::Way;

class Travel : public torch::autograd::Function<Travel> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, const Way& way,
                            const Way& back) {
    context->saved_data["group"] = reinterpret_cast<int64_t>(back.group);
    context->saved_data["sent"] = back.sent;
    context->saved_data["received"] = back.received;
    context->saved_data["before"] = back.before;
    context->saved_data["after"] = back.after;
    return way.go(rows);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto& saved = context->saved_data;
    const Way back{.group = reinterpret_cast<const dist::Group*>(saved.at("group").toInt()),
                   .sent = saved.at("sent").toIntVector(),
                   .received = saved.at("received").toIntVector(),
                   .before = saved.at("before").toTensor(),
                   .after = saved.at("after").toTensor()};
    return {back.go(grads[0]), {}, {}};
  }
};

at::Tensor index_of(const std::vector<int64_t>& order, at::Device device) {
  return at::from_blob(const_cast<int64_t*>(order.data()), {std::ssize(order)}, at::kLong)
      .to(device, at::kLong, /*non_blocking=*/false, /*copy=*/true);
}

}  // namespace

at::Tensor ExpertExchange::Way::go(const at::Tensor& rows) const {
  const at::Tensor ordered = before.defined() ? rows.index_select(0, before) : rows.contiguous();
  const at::Tensor arrived = group->all_to_all(ordered, sent, received);
  return after.defined() ? arrived.index_select(0, after) : arrived;
}

ExpertExchange::ExpertExchange(const std::vector<int64_t>& counts, const dist::Group& group)
    : group_(group) {
  const auto ranks = group.size(), experts = std::ssize(counts);
  std::vector<int64_t> theirs, ours;  // experts of each rank, and so many counts of ours
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const plan::IndexRange share = plan::Share{rank, ranks}.of(experts);
    theirs.push_back(share.count());
    sent_.push_back(
        std::accumulate(counts.begin() + share.begin, counts.begin() + share.end, int64_t{0}));
  }
  const int64_t own = theirs[static_cast<size_t>(group.rank())];
  ours.assign(static_cast<size_t>(ranks), own);
  const at::Tensor announced = group.all_to_all(index_of(counts, at::kCPU), theirs, ours);
  const auto* from = announced.const_data_ptr<int64_t>();  // [ranks, own]
  counts_.assign(static_cast<size_t>(own), 0);
  std::vector<int64_t> starts;  // of the rows of (rank, expert) as they arrive
  int64_t rows = 0;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const int64_t before = rows;
    for (int64_t e = 0; e < own; ++e) {
      starts.push_back(rows);
      rows += from[rank * own + e];
      counts_[static_cast<size_t>(e)] += from[rank * own + e];
    }
    received_.push_back(rows - before);
  }
  std::vector<int64_t> order, back(static_cast<size_t>(rows));
  for (int64_t e = 0; e < own; ++e) {
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const int64_t begin = starts[static_cast<size_t>(rank * own + e)];
      for (int64_t i = 0; i < from[rank * own + e]; ++i) {
        back[static_cast<size_t>(begin + i)] = std::ssize(order);
        order.push_back(begin + i);
      }
    }
  }
  by_expert_ = index_of(order, at::kCPU);
  by_source_ = index_of(back, at::kCPU);
}

ExpertExchange::Way ExpertExchange::there(at::Device device) const {
  return {&group_, sent_, received_, {}, by_expert_.to(device)};
}

ExpertExchange::Way ExpertExchange::back(at::Device device) const {
  return {&group_, received_, sent_, by_source_.to(device), {}};
}

at::Tensor ExpertExchange::to_experts(const at::Tensor& rows) const {
  return Travel::apply(rows, there(rows.device()), back(rows.device()));
}

at::Tensor ExpertExchange::from_experts(const at::Tensor& rows) const {
  return Travel::apply(rows, back(rows.device()), there(rows.device()));
}

}  // namespace qianli::nn
