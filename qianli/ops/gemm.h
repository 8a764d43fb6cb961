// Matrix products through LibTorch, by the faster of the libraries it carries.
#pragma once

#include <ATen/core/Tensor.h>

namespace qianli::ops {

// a b^T (+ bias). a: [M, K]; b: [N, K], any strides; bias: [N] or undefined. Returns [M, N]. Records
// nothing for autograd.
at::Tensor gemm_nt(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias = {});

}  // namespace qianli::ops
