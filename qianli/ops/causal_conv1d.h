// Depthwise causal convolution over packed sequences with SiLU behind it, the short filter in front
// of linear attention (H3, Fu et al., arXiv:2212.14052; Mamba, Gu and Dao, arXiv:2312.00752).
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/parameter.h"
#include "qianli/ops/segments.h"

namespace qianli::ops {

// y[t, c] = act(bias[c] + sum_j weight[c, j] x[t - kernel + 1 + j, c]), rows before a sequence's
// first being zero; act is SiLU or the identity. x: [T, C], rows may be apart; weight: [C, kernel];
// bias: [C] or null. Returns [T, C]. Sums in float32 (float64 for float64 inputs).
at::Tensor causal_conv1d(const at::Tensor& x, Parameter& weight, Parameter* bias,
                         const SegmentStarts& starts, bool silu);

// The same for rows that continue one sequence, without gradients. tail: [kernel - 1, C], the last
// inputs before x, zero at the start of a sequence; becomes the last inputs including x.
at::Tensor causal_conv1d_update(const at::Tensor& x, Parameter& weight, Parameter* bias,
                                at::Tensor& tail, bool silu);

namespace reference {
at::Tensor causal_conv1d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const SegmentStarts& starts, bool silu);
}

}  // namespace qianli::ops
