#include "qianli/nn/mlp.h"

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
      limit_(layer.activation_limit) {}

BlockOutput Mlp::forward(const BlockInput& x, ForwardPass&) {
  const at::Tensor wide = x.through(fc1_);  // [T, f] or [T, 2 f]
  return {gated_ ? ops::gated_activation(wide, activation_, limit_)
                 : ops::activation(wide, activation_),
          fc2_};
}

}  // namespace qianli::nn
