// Adapters that learn in the forward pass, by what they see and answer (LU-LoRA of MindSpeed-LLM:
// Oja's rule with its sign turned). Nothing goes back through such a layer, so nothing of it is
// kept.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/low_rank.h"
#include "qianli/ops/parameter.h"

namespace qianli::ops {

// y of adapted_linear(), without a graph; no magnitude. Where autograd records, which is where a
// training passes for good, each A and B of the adapter gets its oja_change() added to the
// gradient: A of x and s x A^T, B of that and of what the adapter adds to y.
at::Tensor locally_adapted_linear(const at::Tensor& x, const Parameter& weight,
                                  const Parameter* bias, const LowRank& adapter);

// y^T x - mean(y^2) W, the mean over the tokens, with columns scaled to length 1 (those below 1e-12
// to their share of it). x: [T, in]; y: [T, out]; W: [out, in]. [out, in], at least in float32.
at::Tensor oja_change(const at::Tensor& weight, const at::Tensor& x, const at::Tensor& y);

}  // namespace qianli::ops
