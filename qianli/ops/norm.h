// RMSNorm and LayerNorm with the residual addition fused in front. Statistics in float32 (float64 for
// float64 inputs). Zhang & Sennrich 2019; Ba, Kiros & Hinton 2016.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/parameter.h"

namespace qianli::ops {

// y = x / sqrt(mean(x^2) + eps) * weight over the last axis. x: [..., H]; weight: [H].
at::Tensor rms_norm(const at::Tensor& x, Parameter& weight, double eps);
// y = (x - mean) / sqrt(variance + eps) * weight + bias. weight, bias: [H].
at::Tensor layer_norm(const at::Tensor& x, Parameter& weight, Parameter& bias, double eps);

struct NormWithSum {
  at::Tensor y;
  at::Tensor sum;  // x + residual, the next residual stream
};
NormWithSum add_rms_norm(const at::Tensor& x, const at::Tensor& residual, Parameter& weight, double eps);
NormWithSum add_layer_norm(const at::Tensor& x, const at::Tensor& residual, Parameter& weight, Parameter& bias,
                           double eps);

namespace reference {
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps);
}  // namespace reference

}  // namespace qianli::ops
