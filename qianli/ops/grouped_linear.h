// y = x W_g^T + b_g, each group of rows with its own matrix: the experts of a mixture.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "qianli/ops/parameter.h"

namespace qianli::ops {

// x: [R, in], sorted by group: group g owns counts[g] rows, R = sum of counts. weight: [G, out,
// in]; bias: [G, out] or null. Returns [R, out]. Groups without rows cost nothing. Backward: dx =
// dy W_g;  dW_g (+)= dy^T x, db_g += sum dy over the group's rows, accumulated in the parameters'
// gradient dtype.
at::Tensor grouped_linear(const at::Tensor& x, const std::vector<int64_t>& counts,
                          Parameter& weight, Parameter* bias = nullptr);

namespace reference {
at::Tensor grouped_linear(const at::Tensor& x, const std::vector<int64_t>& counts,
                          const at::Tensor& weight, const at::Tensor& bias);
}

}  // namespace qianli::ops
