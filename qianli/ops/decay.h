// Step sizes and decays of recurrent layers, from a projection of the token and parameters per
// head. In float32 (float64 for float64 inputs): exp(a_log) overflows half precision.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/parameter.h"

namespace qianli::ops {

// softplus(x + bias). x: [T, n]; bias: [n].
at::Tensor step_size(const at::Tensor& x, Parameter& bias);
// -exp(a_log) softplus(x + bias), the logarithm of a decay. a_log, bias: [n].
at::Tensor log_decay(const at::Tensor& x, Parameter& a_log, Parameter& bias);

}  // namespace qianli::ops
