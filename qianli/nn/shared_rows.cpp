#include "qianli/nn/shared_rows.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "qianli/plan/model_part.h"

namespace qianli::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Collectives want equally many rows of everyone.
at::Tensor padded(const at::Tensor& x, int64_t rows) {
  if (x.size(0) == rows) return x.contiguous();
  std::vector<int64_t> pads(static_cast<size_t>(2 * x.dim()), 0);
  pads.back() = rows - x.size(0);
  return at::constant_pad_nd(x, pads);
}

}  // namespace

class RowsFunction : public torch::autograd::Function<RowsFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const SharedRows& rows,
                            bool sums) {
    context->saved_data["group"] = reinterpret_cast<int64_t>(rows.group_);
    context->saved_data["counts"] = rows.counts_;
    context->saved_data["sums"] = sums;
    return sums ? rows.summed(x) : rows.gathered(x);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto& saved = context->saved_data;
    const SharedRows rows(*reinterpret_cast<const dist::Group*>(saved.at("group").toInt()),
                          saved.at("counts").toIntVector());
    return {saved.at("sums").toBool() ? rows.gathered(grads[0]) : rows.summed(grads[0]), {}, {}};
  }
};

SharedRows::SharedRows(const dist::Group& group, std::vector<int64_t> counts)
    : group_(&group),
      counts_(std::move(counts)),
      largest_(*std::ranges::max_element(counts_)),
      equal_(*std::ranges::min_element(counts_) == largest_) {}

SharedRows SharedRows::even(int64_t rows, const dist::Group& group) {
  std::vector<int64_t> counts;
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    counts.push_back(plan::Share{rank, group.size()}.of(rows).count());
  }
  return SharedRows(group, std::move(counts));
}

SharedRows SharedRows::of_each(int64_t own, const dist::Group& group) {
  const at::Tensor all = group.all_gather(at::full({1}, own, at::kLong));
  const auto* counts = all.const_data_ptr<int64_t>();
  return SharedRows(group, {counts, counts + group.size()});
}

at::Tensor SharedRows::gathered(const at::Tensor& own) const {
  const at::Tensor all = group_->all_gather(padded(own, largest_));
  if (equal_) return all;
  std::vector<at::Tensor> parts;
  for (size_t rank = 0; rank < counts_.size(); ++rank) {
    parts.push_back(all.narrow(0, static_cast<int64_t>(rank) * largest_, counts_[rank]));
  }
  return at::cat(parts);
}

at::Tensor SharedRows::summed(const at::Tensor& parts) const {
  if (equal_) return group_->reduce_scatter(parts.contiguous());
  std::vector<at::Tensor> spread;
  int64_t next = 0;
  for (const int64_t count : counts_) {
    spread.push_back(padded(parts.narrow(0, next, count), largest_));
    next += count;
  }
  const int64_t own = counts_[static_cast<size_t>(group_->rank())];
  return group_->reduce_scatter(at::cat(spread)).narrow(0, 0, own);
}

at::Tensor SharedRows::gather(const at::Tensor& own) const {
  return RowsFunction::apply(own, *this, false);
}

at::Tensor SharedRows::sum(const at::Tensor& parts) const {
  return RowsFunction::apply(parts, *this, true);
}

}  // namespace qianli::nn
