#include "qianli/ops/decay.h"

#include <ATen/ops/softplus.h>

#include "qianli/ops/reference_function.h"
#include "qianli/ops/segments.h"

namespace qianli::ops {
namespace {

// softplus(x) = x to double precision from here on.
constexpr double kLinearFrom = 40.0;

at::Tensor biased_softplus(const at::Tensor& x, const at::Tensor& bias) {
  const at::ScalarType wide = wide_type(x);
  return at::softplus(x.to(wide) + bias.to(wide), /*beta=*/1.0, kLinearFrom);
}

}  // namespace

at::Tensor step_size(const at::Tensor& x, Parameter& bias) {
  const auto formula = [](const Tensors& inputs, const Tensors& weights) {
    return Tensors{biased_softplus(inputs[0], weights[0])};
  };
  return apply_reference(formula, {x}, {&bias})[0];
}

at::Tensor log_decay(const at::Tensor& x, Parameter& a_log, Parameter& bias) {
  const auto formula = [](const Tensors& inputs, const Tensors& weights) {
    const at::Tensor step = biased_softplus(inputs[0], weights[1]);
    return Tensors{-weights[0].to(step.scalar_type()).exp() * step};
  };
  return apply_reference(formula, {x}, {&a_log, &bias})[0];
}

}  // namespace qianli::ops
