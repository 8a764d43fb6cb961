#include "qianli/nn/layers.h"

#include "qianli/ops/linear.h"

namespace qianli::nn {

at::Tensor Linear::operator()(const at::Tensor& x) const { return ops::linear(x, *weight, bias); }

at::Tensor Linear::partial(const at::Tensor& x, const Parallel& parallel) const {
  return ops::linear(x, *weight, parallel.tensor.rank() == 0 ? bias : nullptr);
}

Linear find_linear(ParameterSet& parameters, const std::string& prefix) {
  return {parameters.find(prefix + ".weight"), parameters.find(prefix + ".bias")};
}

at::Tensor Norm::operator()(const at::Tensor& x) const {
  if (!columns.alone()) return shared_norm(x, *this);
  if (kind == model::NormKind::kLayerNorm) return ops::layer_norm(x, *weight, bias, eps);
  return ops::rms_norm(x, *weight, eps, weight_kind);
}

ops::NormWithSum Norm::add(const at::Tensor& x, const at::Tensor& residual) const {
  if (!columns.alone()) {
    const at::Tensor sum = x + residual;
    return {shared_norm(sum, *this), sum};
  }
  if (kind == model::NormKind::kLayerNorm)
    return ops::add_layer_norm(x, residual, *weight, bias, eps);
  return ops::add_rms_norm(x, residual, *weight, eps, weight_kind);
}

ops::NormWeight norm_weight(const model::ModelSpec& spec) {
  return spec.norm_zero_centered ? ops::NormWeight::kZeroCentered : ops::NormWeight::kPlain;
}

Norm find_norm(ParameterSet& parameters, const std::string& prefix, const model::ModelSpec& spec,
               const Parallel& parallel) {
  return {{.weight = parameters.find(prefix + ".weight"),
           .bias = parameters.find(prefix + ".bias"),
           .kind = spec.norm,
           .eps = spec.norm_eps,
           .weight_kind = norm_weight(spec),
           .columns = parallel.tensor_y,
           .width = spec.hidden_size}};
}

}  // namespace qianli::nn
