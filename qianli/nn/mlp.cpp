#include "qianli/nn/mlp.h"

#include <ATen/ops/clamp.h>
#include <ATen/ops/full.h>

#include <limits>

namespace qianli::nn {

ops::ActivationKind activation_kind(model::Activation activation) {
  switch (activation) {
    case model::Activation::kSilu:
      return ops::ActivationKind::kSilu;
    case model::Activation::kGelu:
      return ops::ActivationKind::kGelu;
    case model::Activation::kGeluTanh:
      return ops::ActivationKind::kGeluTanh;
    case model::Activation::kRelu:
      return ops::ActivationKind::kRelu;
    case model::Activation::kRelu2:
      return ops::ActivationKind::kRelu2;
    case model::Activation::kClampedSwiglu:
      return ops::ActivationKind::kClampedSwiglu;
  }
  return ops::ActivationKind::kSilu;
}

Mlp::Mlp(const model::ModelSpec& spec, const model::LayerSpec& layer, ParameterSet& parameters,
         const std::string& prefix)
    : fc1_(find_linear(parameters, prefix + ".linear_fc1")),
      fc2_(find_linear(parameters, prefix + ".linear_fc2")),
      gated_(spec.gated_mlp),
      activation_(activation_kind(spec.activation)),
      limit_(layer.activation_limit),
      limit_first_(spec.limit_before_activation) {}

at::Tensor gated_branches(const at::Tensor& wide, ops::ActivationKind kind, double limit,
                          bool limit_first) {
  if (limit <= 0 || !limit_first) return ops::gated_activation(wide, kind, limit);
  const int64_t width = wide.size(1) / 2;
  at::Tensor least = at::full({2 * width}, -limit, wide.options().requires_grad(false));
  least.narrow(0, 0, width).fill_(-std::numeric_limits<double>::infinity());
  const at::Tensor most = at::full({1}, limit, least.options());
  return ops::gated_activation(at::clamp(wide, least, most), kind);
}

BlockOutput Mlp::forward(const BlockInput& x, ForwardPass&) {
  const at::Tensor wide = x.through(fc1_);  // [T, f] or [T, 2 f]
  return {gated_ ? gated_branches(wide, activation_, limit_, limit_first_)
                 : ops::activation(wide, activation_),
          fc2_};
}

}  // namespace qianli::nn
