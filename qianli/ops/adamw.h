// AdamW on flat ranges (Loshchilov & Hutter 2019), and the global norm.
#pragma once

#include <ATen/core/Tensor.h>

namespace qianli::ops {

struct AdamWStep {
  double lr = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  int64_t step = 1;         // 1 for the first update: the exponent of the bias corrections
  double grad_scale = 1.0;  // multiplies the gradient first: the clipping coefficient
};

// All [n], one dtype (float32; float64 for proofs), updated in place. `low_precision`: [n] bfloat16 copy
// of the parameter, or undefined.
void adamw(at::Tensor parameter, const at::Tensor& grad, at::Tensor exp_avg, at::Tensor exp_avg_sq,
           at::Tensor low_precision, const AdamWStep& step);

// Sum of squares, [] float64 on x's device.
at::Tensor squared_norm(const at::Tensor& x);

namespace reference {
void adamw(at::Tensor parameter, const at::Tensor& grad, at::Tensor exp_avg, at::Tensor exp_avg_sq,
           at::Tensor low_precision, const AdamWStep& step);
at::Tensor squared_norm(const at::Tensor& x);
}  // namespace reference

}  // namespace qianli::ops
