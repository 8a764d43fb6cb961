// Packed sequences: sequence s owns the rows [starts[s], starts[s+1]) of a tensor, from 0 to its
// end.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace qianli::ops {

using SegmentStarts = std::vector<int64_t>;

// Throws c10::Error unless the starts ascend from 0 to `rows`.
void check_segments(const char* op, const SegmentStarts& starts, int64_t rows);

// For autograd functions, which keep their arguments as capsules.
struct SegmentsHolder : torch::CustomClassHolder {
  explicit SegmentsHolder(SegmentStarts given) : starts(std::move(given)) {}
  SegmentStarts starts;

  int64_t count() const { return static_cast<int64_t>(starts.size()) - 1; }
};

// x with whole rows: the last axes contiguous, rows apart as they are.
at::Tensor with_whole_rows(const at::Tensor& x);

// The accumulation type of the recurrent ops: float64 for float64, else float32.
inline at::ScalarType wide_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace qianli::ops
