// An adapter of low rank beside a weight W (LoRA, Hu et al. 2021): y = x W^T + s x A^T B^T. Where W
// holds several modules each has an A and rows of B of its own; their A's lie in one matrix, so
// that x is read once for all of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "qianli/ops/parameter.h"

namespace qianli::ops {

struct LowRank {
  Parameter* a = nullptr;  // [g r, in], or [experts, g r, in]
  Parameter* b = nullptr;  // [rows, r], or [experts, rows, r]
  // [rows]; DoRA (Liu et al. 2024): the adapted rows of W + s B A have this length. Null: they have
  // their own. Not of experts.
  Parameter* magnitude = nullptr;
  double scale = 1;
  struct Rows {
    int64_t first = 0, count = 0;  // of W, as this rank has it
  };
  std::vector<Rows> modules;  // [g]; B has their rows one behind the other
  bool local = false;         // it learns in the forward pass (local_low_rank.h)
};

// x: [T, in]; weight: [out, in]; bias: [out] or null. Returns [T, out]. The backward pass takes x
// and x A^T along: dz = s dy B;  dx = dy W + dz A;  dA (+)= dz^T x;  dB (+)= s dy^T (x A^T). With a
// magnitude m the adapted columns of y, without the bias, are multiplied by m / |W + s B A|, the
// lengths of whose rows count as constants.
at::Tensor adapted_linear(const at::Tensor& x, Parameter& weight, Parameter* bias,
                          const LowRank& adapter);

// What the adapters of experts add: rows of x sorted by expert as in grouped_linear. x: [R, in].
// Returns [R, out].
at::Tensor grouped_low_rank(const at::Tensor& x, const std::vector<int64_t>& counts, int64_t out,
                            const LowRank& adapter);

// Lengths of the adapted rows of W + s B A, [rows], at least in float32.
at::Tensor row_lengths(const Parameter& weight, const LowRank& adapter);

// The weight with the adapter in it, [out, in].
at::Tensor merged_weight(const Parameter& weight, const LowRank& adapter);

// Parts of the above, without a graph. `a` and `b` are the values of the parameters, of experts of
// one of them.
struct LowRankValues {
  at::Tensor a, b;
  double scale;
  const std::vector<LowRank::Rows>& modules;

  at::Tensor down(const at::Tensor& x) const;              // z = x A^T: [T, g r]
  void add_up(const at::Tensor& z, at::Tensor y) const;    // y += s z B^T
  at::Tensor up_gradient(const at::Tensor& grad_y) const;  // dz: [T, g r]
  // dx += dz A; what is undefined becomes it.
  void add_input_gradient(const at::Tensor& grad_z, at::Tensor& grad_x) const;
};
LowRankValues values_of(const LowRank& adapter);
// Into the gradients of A and B, those that are trained.
void accumulate_low_rank(const LowRank& adapter, const at::Tensor& grad_y, const at::Tensor& x,
                         const at::Tensor& z, const at::Tensor& grad_z);

bool is_trained(const LowRank& adapter);

namespace reference {
at::Tensor adapted_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const at::Tensor& a, const at::Tensor& b, double scale,
                          const std::vector<LowRank::Rows>& modules);
}

}  // namespace qianli::ops
