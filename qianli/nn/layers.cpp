#include "qianli/nn/layers.h"

#include <algorithm>

#include "qianli/config/tune_section.h"
#include "qianli/model/tuned_table.h"
#include "qianli/ops/linear.h"
#include "qianli/ops/local_low_rank.h"

namespace qianli::nn {
namespace {

// Rows [first, first + count) of the whole among those that the rank has.
ops::LowRank::Rows own_rows(const std::vector<plan::IndexRange>& kept, int64_t first,
                            int64_t count) {
  ops::LowRank::Rows own;
  int64_t next = 0;
  for (const plan::IndexRange& range : kept) {
    const int64_t begin = std::max(range.begin, first);
    const int64_t end = std::min(range.end, first + count);
    if (begin < end) {
      if (own.count == 0) own.first = next + begin - range.begin;
      own.count += end - begin;
    }
    next += range.count();
  }
  return own;
}

std::shared_ptr<const ops::LowRank> find_adapter(ParameterSet& parameters,
                                                 const std::string& prefix) {
  ops::Parameter* a = parameters.find(prefix + ".lora_A");
  if (!a) return nullptr;
  const plan::ParameterPart& weight = parameters.part(parameters.index_of(prefix + ".weight"));
  auto adapter = std::make_shared<ops::LowRank>(
      ops::LowRank{.a = a,
                   .b = &parameters.at(prefix + ".lora_B"),
                   .magnitude = parameters.find(prefix + ".lora_magnitude"),
                   .scale = parameters.tune().scale(),
                   .modules = {},
                   .local = parameters.tune().learns_locally(weight.entry.layer)});
  const auto& kept = weight.kept[weight.entry.expert ? 1 : 0];
  for (const auto& rows : model::adapted_rows(weight.entry, parameters.tune()))
    adapter->modules.push_back(own_rows(kept, rows.first, rows.count));
  return adapter;
}

}  // namespace

at::Tensor Linear::operator()(const at::Tensor& x) const {
  TORCH_CHECK(!attached || !attached->in_use() || x.size(0) == attached->pass_rows(),
              "[nn] expected all rows of the pass for ", weight->name());
  return of_rows(x, 0);
}

at::Tensor Linear::of_rows(const at::Tensor& x, int64_t first) const {
  if (adapter && adapter->local) return ops::locally_adapted_linear(x, *weight, bias, *adapter);
  at::Tensor y =
      adapter ? ops::adapted_linear(x, *weight, bias, *adapter) : ops::linear(x, *weight, bias);
  if (attached && attached->in_use()) attached->add(x, bias, first, y);
  return y;
}

at::Tensor Linear::partial(const at::Tensor& x, const Parallel& parallel) const {
  return Linear{weight, parallel.tensor.rank() == 0 ? bias : nullptr, adapter, attached}(x);
}

std::vector<AttachedLinear::RowsWeight> Linear::merged_weights(int64_t rows) const {
  const at::Tensor own = adapter ? ops::merged_weight(*weight, *adapter) : weight->value();
  if (attached && attached->in_use()) return attached->weights(own, rows);
  return {{own, 0, rows}};
}

bool Linear::learns_from_input() const {
  return weight->trainable() || (adapter && ops::is_trained(*adapter));
}

bool Linear::is_trained() const { return learns_from_input() || (bias && bias->trainable()); }

Linear find_linear(ParameterSet& parameters, const std::string& prefix) {
  return {parameters.find(prefix + ".weight"), parameters.find(prefix + ".bias"),
          find_adapter(parameters, prefix), parameters.attached().at(prefix)};
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
