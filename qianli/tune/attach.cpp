#include "qianli/tune/attach.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones_like.h>
#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "qianli/base/error.h"
#include "qianli/convert/adapter/trained.h"
#include "qianli/model/tuned_table.h"
#include "qianli/nn/attached_adapters.h"
#include "qianli/tune/adapter.h"

namespace qianli::tune {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMergeHint = "merge it into the model: qianli convert --adapter";

[[noreturn]] void refuse(const fs::path& path, const std::string& reason, const std::string& hint) {
  throw CheckpointError("adapter", fmt::format("{}: {}", path.string(), reason), hint);
}

// Throws for a module that the model does not have.
void check_modules(const fs::path& path, const model::ModelSpec& spec,
                   const config::TuneConfig& tune) {
  const auto table = model::parameter_table(spec);
  for (const config::NameMatch& module : tune.target_modules) {
    const config::TuneConfig alone{.method = "lora", .target_modules = {module}};
    const bool found = std::ranges::any_of(
        table, [&](const auto& entry) { return !model::adapted_rows(entry, alone).empty(); });
    if (found) continue;
    refuse(
        path,
        fmt::format("expected modules that the model has, got {}, which it has not", module.match),
        "the adapter belongs to another model");
  }
}

std::unique_ptr<convert::ModelSource> open(const fs::path& path, const convert::Adapter& adapter,
                                           const model::ModelSpec& spec,
                                           const config::TuneConfig& tune) {
  std::unique_ptr<convert::ModelSource> source;
  try {
    source = convert::as_trained(adapter.tensors, path, spec, tune);
  } catch (const ConfigError&) {
    check_modules(path, spec, tune);
    throw;
  }
  if (source->unused().empty()) return source;
  refuse(path, fmt::format("{} has no place in the model", source->unused().front()),
         "the adapter belongs to another model");
}

// By our names: "decoder.layers.0.self_attention.linear_qkv.lora_A".
std::map<std::string, at::Tensor> read(const convert::ModelSource& source,
                                       const at::TensorOptions& options) {
  const bool wide = options.dtype() == at::kDouble;
  const auto tensors = convert::own_tensors(source.table);
  std::map<std::string, at::Tensor> values;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor value = at::empty(source.table[i].shape, wide ? at::kDouble : at::kFloat);
    source.reader->assemble(tensors[i], wide ? formats::Dtype::kF64 : formats::Dtype::kF32,
                            {static_cast<std::byte*>(value.mutable_data_ptr()), value.nbytes()});
    values[source.table[i].name] = value.to(options);
  }
  return values;
}

// m / |W + s B A| for the rows that have an adapter, 1 for the others: [out].
at::Tensor dora_factors(const nn::AttachedLowRank& adapter, const at::Tensor& weight,
                        const at::Tensor& magnitude) {
  const bool wide = weight.scalar_type() == at::kDouble;
  const at::Tensor lengths =
      adapter.merged(weight).to(wide ? at::kDouble : at::kFloat).norm(2, {1});
  at::Tensor factors = at::ones_like(lengths);
  int64_t row = 0;
  for (const ops::LowRank::Rows& rows : adapter.modules) {
    factors.narrow(0, rows.first, rows.count)
        .copy_(magnitude.narrow(0, row, rows.count).to(lengths.scalar_type()) /
               lengths.narrow(0, rows.first, rows.count));
    row += rows.count;
  }
  return factors.to(weight.scalar_type());
}

}  // namespace

int64_t attach(const fs::path& path, const model::ModelSpec& spec, nn::ParameterSet& parameters) {
  const at::NoGradGuard no_grad;
  const convert::Adapter adapter = convert::open_adapter(path, model::parameter_table(spec));
  if (!adapter.tensors.whole.empty()) {
    refuse(path,
           fmt::format("expected matrices of low rank alone, got {} whole",
                       adapter.tensors.whole.begin()->first),
           kMergeHint);
  }
  const config::TuneConfig tune = tuning_of(path, adapter);
  const auto values = read(*open(path, adapter, spec, tune), parameters.options());
  std::map<std::string, nn::AttachedLowRank> layers;
  for (const model::ParameterEntry& entry : model::parameter_table(spec)) {
    const std::string layer = model::module_of(entry.name);
    const auto a = values.find(layer + ".lora_A");
    if (a == values.end() || !entry.name.ends_with(".weight")) continue;
    nn::AttachedLowRank& own = layers[layer];
    own = {.a = a->second, .b = values.at(layer + ".lora_B"), .modules = {}, .scale = tune.scale()};
    for (const auto& rows : model::adapted_rows(entry, tune))
      own.modules.push_back({rows.first, rows.count});
    const auto magnitude = values.find(layer + ".lora_magnitude");
    if (magnitude == values.end()) continue;
    own.factors = dora_factors(own, parameters.at(entry.name).value(), magnitude->second);
  }
  return parameters.attached().attach(std::move(layers));
}

}  // namespace qianli::tune
