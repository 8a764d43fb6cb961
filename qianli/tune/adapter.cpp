#include "qianli/tune/adapter.h"

#include <ATen/ops/empty.h>
#include <fmt/core.h>

#include <cmath>
#include <string_view>

#include "qianli/base/error.h"
#include "qianli/convert/adapter/trained.h"

namespace qianli::tune {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const fs::path& folder, const std::string& reason,
                         const std::string& hint = {}) {
  throw CheckpointError("tune", fmt::format("{}: {}", folder.string(), reason), hint);
}

// All modules of the adapter have the same.
double scale_of(const fs::path& folder, const convert::Adapter& adapter) {
  if (adapter.tensors.modules.empty()) refuse(folder, "expected lora_A and lora_B, found none");
  const double scale = adapter.config.scale(adapter.tensors.modules.begin()->first);
  for (const auto& [module, tensors] : adapter.tensors.modules) {
    if (adapter.config.scale(module) != scale) {
      refuse(folder,
             fmt::format("expected one scale for all modules, got {} and {} for {}", scale,
                         adapter.config.scale(module), module),
             "merge it into the model: qianli convert --adapter");
    }
  }
  return scale;
}

// Of names of experts that of the first.
bool is_first_or_none(const std::string& module) {
  constexpr std::string_view kExperts = ".experts.";
  const size_t at = module.find(kExperts);
  return at == module.npos ||
         std::string_view(module).substr(at + kExperts.size()).starts_with("0.");
}

}  // namespace

config::TuneConfig tuning_of(const fs::path& folder, const model::ModelSpec& spec) {
  return tuning_of(folder, convert::open_peft_adapter(folder, model::parameter_table(spec)));
}

config::TuneConfig tuning_of(const fs::path& folder, const convert::Adapter& adapter) {
  const double scale = scale_of(folder, adapter);
  config::TuneConfig tune{.method = "lora"};
  tune.r = adapter.config.rank(adapter.tensors.modules.begin()->first);
  tune.alpha = scale * static_cast<double>(tune.r);
  tune.use_dora = adapter.config.use_dora();
  for (const auto& [module, tensors] : adapter.tensors.modules) {
    if (adapter.config.rank(module) != tune.r || tensors.embedding) {
      refuse(folder,
             fmt::format("expected LoRA of linear layers with one rank, got something else for {}",
                         module),
             "merge it into the model: qianli convert --adapter");
    }
    // The first expert stands for all of them.
    if (is_first_or_none(module)) tune.target_modules.push_back({module});
  }
  for (const auto& [name, tensor] : adapter.tensors.whole)
    tune.modules_to_save.push_back({name.substr(0, name.rfind('.'))});
  return tune;
}

void load_adapter(const fs::path& folder, const model::ModelSpec& spec,
                  nn::ParameterSet& parameters) {
  const auto adapter = convert::open_peft_adapter(folder, model::parameter_table(spec));
  const double scale = scale_of(folder, adapter);
  if (std::abs(scale / parameters.tune().scale() - 1.0) > 1e-12) {
    refuse(folder, fmt::format("expected a scale of {}, got {}", parameters.tune().scale(), scale),
           "tune.alpha and tune.r must be those of the adapter");
  }
  const auto source = convert::as_trained(adapter.tensors, folder, spec, parameters.tune());
  if (!source->unused().empty())
    refuse(folder, fmt::format("{} has no place in what is trained", source->unused().front()),
           "tune.target_modules and tune.modules_to_save must be those of the adapter");
  const bool wide = parameters.options().dtype() == at::kDouble;
  const auto tensors = convert::own_tensors(source->table);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (parameters.is_elsewhere(tensors[i].name)) continue;
    const at::Tensor values =
        at::empty({source->table[i].elements()}, wide ? at::kDouble : at::kFloat);
    source->reader->assemble(tensors[i], wide ? formats::Dtype::kF64 : formats::Dtype::kF32,
                             {static_cast<std::byte*>(values.mutable_data_ptr()), values.nbytes()});
    parameters.write(parameters.index_of(tensors[i].name), 0, values);
  }
  parameters.refresh_from_master();
}

}  // namespace qianli::tune
