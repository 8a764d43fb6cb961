// Rows of tokens on their way to experts and back: sorted by expert, so that each expert finds its
// rows in one piece.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace qianli::ops {

// T tokens with k choices each become R rows, sorted by (expert, token).
struct RowPlan {
  at::Tensor tokens;            // [R] int64: the token of each row
  at::Tensor rows;              // [T, k] int64: the row of each choice, -1 where it has none
  std::vector<int64_t> counts;  // [E]: rows of each expert
  bool padded = false;          // some rows belong to no choice

  int64_t num_rows() const { return tokens.size(0); }
};

// experts: [T, k] int64; a choice outside [0, num_experts) gets no row. With `rows_per_expert` > 0
// every expert gets exactly so many: rows of no choice, of token 0, fill them up. No expert may be
// chosen more often than that then.
RowPlan plan_rows(const at::Tensor& experts, int64_t num_experts, int64_t rows_per_expert = 0);

// x: [T, H] -> [R, H].
at::Tensor gather_rows(const at::Tensor& x, const RowPlan& plan);

// y[t] = sum of weights[t, s] rows[plan.rows[t, s]] over the token's choices that have a row.
// rows: [R, H]; weights: [T, k] float32 (float64 for float64 rows). Returns [T, H]. The gradient of
// a weight without a row is 0.
at::Tensor combine_rows(const at::Tensor& rows, const at::Tensor& weights, const RowPlan& plan);

namespace reference {
RowPlan plan_rows(const at::Tensor& experts, int64_t num_experts, int64_t rows_per_expert = 0);
at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& tokens);
at::Tensor combine_rows(const at::Tensor& rows, const at::Tensor& weights, const at::Tensor& plan);
}  // namespace reference

}  // namespace qianli::ops
