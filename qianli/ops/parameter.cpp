#include "qianli/ops/parameter.h"

#include <ATen/ops/empty.h>

namespace qianli::ops {

const at::Tensor& Parameter::grad() {
  if (!started_ && grad_.defined()) grad_to_add();
  return grad_;
}

void Parameter::start() {
  started_ = true;
  if (need_) need_();
}

at::Tensor& Parameter::grad_to_add() {
  if (!started_) {
    start();
    grad_.zero_();
  }
  return grad_;
}

Parameter::Accumulation Parameter::grad_to_accumulate() {
  const double beta = started_ ? 1.0 : 0.0;
  if (!started_) start();
  return {grad_, beta};
}

const at::Tensor& gradient_anchor() {
  static const at::Tensor anchor = at::empty({0}).requires_grad_(true);
  return anchor;
}

}  // namespace qianli::ops
