#include "qianli/nn/shared_rows.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <numeric>
#include <utility>

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

SharedRows SharedRows::of_counts(std::vector<int64_t> counts, const dist::Group& group) {
  return SharedRows(group, std::move(counts));
}

SharedRows SharedRows::of_each(int64_t own, const dist::Group& group) {
  const at::Tensor all = group.all_gather(at::full({1}, own, at::kLong));
  const auto* counts = all.const_data_ptr<int64_t>();
  return SharedRows(group, {counts, counts + group.size()});
}

at::Tensor SharedRows::gathered(const at::Tensor& own) const { return start_gather(own).wait(); }

at::Tensor SharedRows::summed(const at::Tensor& parts) const { return start_sum(parts).wait(); }

MovingRows SharedRows::start_gather(const at::Tensor& own) const {
  if (group_->alone()) return MovingRows(own);
  const at::Tensor part = padded(own, largest_);
  auto sizes = part.sizes().vec();
  sizes[0] *= group_->size();
  const at::Tensor all = at::empty(sizes, part.options());
  dist::Pending pending = group_->start_all_gather(all, part);
  if (equal_) return {all, std::move(pending)};
  return {all, std::move(pending),
          [counts = counts_, largest = largest_](const at::Tensor& padded) {
            std::vector<at::Tensor> parts;
            for (size_t rank = 0; rank < counts.size(); ++rank) {
              const int64_t first = static_cast<int64_t>(rank) * largest;
              parts.push_back(padded.narrow(0, first, counts[rank]));
            }
            return at::cat(parts);
          }};
}

MovingRows SharedRows::start_sum(const at::Tensor& parts) const {
  if (group_->alone()) return MovingRows(parts);
  at::Tensor spread = parts;
  if (!equal_) {
    std::vector<at::Tensor> pieces;
    int64_t next = 0;
    for (const int64_t count : counts_) {
      pieces.push_back(padded(parts.narrow(0, next, count), largest_));
      next += count;
    }
    spread = at::cat(pieces);
  }
  auto sizes = spread.sizes().vec();
  sizes[0] = largest_;
  const at::Tensor sum = at::empty(sizes, spread.options());
  dist::Pending pending = group_->start_reduce_scatter(sum, spread.contiguous());
  const int64_t own = counts_[static_cast<size_t>(group_->rank())];
  if (own == largest_) return {sum, std::move(pending)};
  return {sum, std::move(pending),
          [own](const at::Tensor& padded) { return padded.narrow(0, 0, own); }};
}

at::Tensor MovingRows::wait() {
  pending_.wait();
  const at::Tensor rows = std::exchange(landing_, {});
  return unpack_ ? unpack_(rows) : rows;
}

SharedRows SharedRows::slice(int64_t i, int64_t n) const {
  std::vector<int64_t> counts;
  for (const int64_t count : counts_) counts.push_back(plan::Share{i, n}.of(count).count());
  return SharedRows(*group_, std::move(counts));
}

at::Tensor SharedRows::own_slice(const at::Tensor& own, int64_t i, int64_t n) const {
  const plan::IndexRange rows = plan::Share{i, n}.of(own.size(0));
  return own.narrow(0, rows.begin, rows.count());
}

template <class Body>
void SharedRows::over_slice(int64_t i, int64_t n, const Body& body) const {
  int64_t first = 0, place = 0;
  for (const int64_t count : counts_) {
    const plan::IndexRange rows = plan::Share{i, n}.of(count);
    body(plan::IndexRange{first + rows.begin, first + rows.end}, place);
    first += count;
    place += rows.count();
  }
}

at::Tensor SharedRows::take_slice(const at::Tensor& all, int64_t i, int64_t n) const {
  std::vector<at::Tensor> parts;
  over_slice(i, n, [&](plan::IndexRange rows, int64_t) {
    parts.push_back(all.narrow(0, rows.begin, rows.count()));
  });
  return at::cat(parts);
}

void SharedRows::put_slice(const at::Tensor& all, const at::Tensor& slice, int64_t i,
                           int64_t n) const {
  over_slice(i, n, [&](plan::IndexRange rows, int64_t place) {
    all.narrow(0, rows.begin, rows.count()).copy_(slice.narrow(0, place, rows.count()));
  });
}

int64_t SharedRows::total() const {
  return std::accumulate(counts_.begin(), counts_.end(), int64_t{0});
}

at::Tensor SharedRows::gather(const at::Tensor& own) const {
  return RowsFunction::apply(own, *this, false);
}

at::Tensor SharedRows::sum(const at::Tensor& parts) const {
  return RowsFunction::apply(parts, *this, true);
}

}  // namespace qianli::nn
