// RMSNorm and LayerNorm over the last axis, with the residual addition fused in front. Statistics
// in float32 (float64 for float64 inputs). Zhang & Sennrich 2019; Ba, Kiros & Hinton 2016.
//
// A weight is [H], or [heads, H] with x [..., heads, H]: one row for each head (Command-R+).
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/parameter.h"

namespace qianli::ops {

// kZeroCentered: stored as its difference from 1; the product with 1 + weight is taken in float32
// and rounded once (Gemma, Qwen3-Next).
enum class NormWeight { kPlain, kZeroCentered };

// y = x / sqrt(mean(x^2) + eps) * weight. x: [..., H].
at::Tensor rms_norm(const at::Tensor& x, Parameter& weight, double eps,
                    NormWeight kind = NormWeight::kPlain);
// y = (x - mean) / sqrt(variance + eps) * weight + bias; bias: shape of weight, or null.
at::Tensor layer_norm(const at::Tensor& x, Parameter& weight, Parameter* bias, double eps);

struct NormWithSum {
  at::Tensor y;
  at::Tensor sum;  // x + residual, the next residual stream
};
NormWithSum add_rms_norm(const at::Tensor& x, const at::Tensor& residual, Parameter& weight,
                         double eps, NormWeight kind = NormWeight::kPlain);
NormWithSum add_layer_norm(const at::Tensor& x, const at::Tensor& residual, Parameter& weight,
                           Parameter* bias, double eps);

// RMSNorm with a gate of x's shape; silu in float32. A weight [groups, H] or [groups * H] with x
// [T, groups, H] norms each group by itself; a weight [H] serves all rows.
//   kAfterNorm:  y = norm(x) * weight * silu(gate)      gated DeltaNet, Qwen3-Next
//   kBeforeNorm: y = norm(x * silu(gate)) * weight      Mamba-2
enum class GatePlace { kAfterNorm, kBeforeNorm };
at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& gate, Parameter& weight,
                          double eps, GatePlace place);

namespace reference {
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                    NormWeight kind = NormWeight::kPlain);
// bias: undefined for none.
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps);
at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight,
                          double eps, GatePlace place);
}  // namespace reference

}  // namespace qianli::ops
