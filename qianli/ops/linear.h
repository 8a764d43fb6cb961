// y = x W^T + b, the hub of every layer: its weight gradient goes straight into the flat buffer.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/parameter.h"

namespace qianli::ops {

// x: [T, in]; weight: [out, in]; bias: [out] or null. Returns [T, out].
// Backward: dx = dy W;  dW (+)= dy^T x, db += sum dy, accumulated in the parameters' gradient dtype.
at::Tensor linear(const at::Tensor& x, Parameter& weight, Parameter* bias = nullptr);

// dW (+)= dy^T x into the parameter's buffer. grad_y: [T, out]; x: [T, in].
void accumulate_weight_gradient(Parameter& weight, const at::Tensor& grad_y, const at::Tensor& x);

namespace reference {
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
}

}  // namespace qianli::ops
