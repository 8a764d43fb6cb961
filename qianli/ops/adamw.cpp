#include "qianli/ops/adamw.h"

#include <ATen/ops/empty.h>

#include <cmath>

#include "qianli/ops/dispatch.h"

namespace qianli::ops {

void adamw(at::Tensor parameter, const at::Tensor& grad, at::Tensor exp_avg, at::Tensor exp_avg_sq,
           at::Tensor low_precision, const AdamWStep& step) {
  const KernelTable* kernels = kernels_for(Op::kAdamW, parameter);
  if (!kernels) return reference::adamw(parameter, grad, exp_avg, exp_avg_sq, low_precision, step);
  kernels->adamw({.count = parameter.numel(),
                  .parameter = parameter.data_ptr<float>(),
                  .grad = grad.data_ptr<float>(),
                  .exp_avg = exp_avg.data_ptr<float>(),
                  .exp_avg_sq = exp_avg_sq.data_ptr<float>(),
                  .bf16_copy = low_precision.defined() ? low_precision.data_ptr() : nullptr,
                  .lr = step.lr,
                  .beta1 = step.beta1,
                  .beta2 = step.beta2,
                  .eps = step.eps,
                  .weight_decay = step.weight_decay,
                  .bias_correction1 = 1.0 - std::pow(step.beta1, static_cast<double>(step.step)),
                  .bias_correction2 = 1.0 - std::pow(step.beta2, static_cast<double>(step.step)),
                  .grad_scale = step.grad_scale},
                 stream_of(parameter));
}

at::Tensor squared_norm(const at::Tensor& x) {
  const KernelTable* kernels = kernels_for(Op::kSquaredNorm, x);
  if (!kernels) return reference::squared_norm(x);
  at::Tensor result = at::empty({}, x.options().dtype(at::kDouble));
  kernels->squared_norm(
      {.count = x.numel(), .x = x.data_ptr<float>(), .result = result.data_ptr<double>()},
      stream_of(x));
  return result;
}

namespace reference {

void adamw(at::Tensor parameter, const at::Tensor& grad, at::Tensor exp_avg, at::Tensor exp_avg_sq,
           at::Tensor low_precision, const AdamWStep& step) {
  const double correction1 = 1.0 - std::pow(step.beta1, static_cast<double>(step.step));
  const double correction2 = 1.0 - std::pow(step.beta2, static_cast<double>(step.step));
  const at::Tensor g = grad * step.grad_scale;
  exp_avg.mul_(step.beta1).add_(g, 1.0 - step.beta1);
  exp_avg_sq.mul_(step.beta2).addcmul_(g, g, 1.0 - step.beta2);
  parameter.mul_(1.0 - step.lr * step.weight_decay);
  parameter.addcdiv_(exp_avg, exp_avg_sq.sqrt().div_(std::sqrt(correction2)).add_(step.eps),
                     -step.lr / correction1);
  if (low_precision.defined()) low_precision.copy_(parameter);
}

at::Tensor squared_norm(const at::Tensor& x) { return x.to(at::kDouble).pow(2).sum(); }

}  // namespace reference

}  // namespace qianli::ops
