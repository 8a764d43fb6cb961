// What mixes a residual stream of several rows (Xie et al., arXiv:2512.24880): weights that each
// token gives from its own rows. Shapes: T tokens, n rows of h, m numbers per token.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/parameter.h"

namespace qianli::ops {

struct HyperShape {
  int64_t streams = 0;     // n
  int64_t iterations = 0;  // of Sinkhorn; 0: the first n numbers alone, m = n
  double eps = 0.0;

  int64_t numbers() const { return iterations > 0 ? (2 + streams) * streams : streams; }  // m
};

// x W^T / rms(x) in float32 (float64 for float64), whatever the type of x [T, n h] and weight [m,
// n h]. Returns [T, m].
at::Tensor rms_linear(const at::Tensor& x, Parameter& weight, double norm_eps);

// From the m numbers of each token, times scale [3] (or [1]) plus bias [m]:
//   the first n   sigmoid + eps           how much of each row a block reads
//   the next n    2 sigmoid               how much of its output joins each row
//   n x n behind  softmax of each row + eps, then columns, and `iterations` - 1 times rows and
//                 columns, divided by their sum + eps
// logits: [T, m] float32 or float64; returns [T, m].
at::Tensor hyper_weights(const at::Tensor& logits, Parameter& bias, Parameter& scale,
                         const HyperShape& shape);

namespace reference {
at::Tensor hyper_weights(const at::Tensor& logits, const at::Tensor& bias, const at::Tensor& scale,
                         const HyperShape& shape);
}

}  // namespace qianli::ops
