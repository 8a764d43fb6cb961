#include "qianli/tune/start.h"

#include "qianli/model/tuned_table.h"
#include "qianli/tune/adapter.h"

namespace qianli::tune {

void start_adapters(const config::Config& config, const model::ModelSpec& spec,
                    nn::ParameterSet& parameters) {
  if (!config.tune.lora()) return;
  if (config.tune.adapter) return load_adapter(*config.tune.adapter, spec, parameters);
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (model::is_adapter(parameters.entry(i).name))
      parameters.initialize(i, static_cast<uint64_t>(config.train.seed));
  }
}

config::OptimConfig optimizer_of(const config::Config& config) {
  config::OptimConfig optim = config.optim;
  if (!config.tune.lora() || config.tune.loraplus_lr_ratio == 1.0) return optim;
  optim.groups.push_back({.match = "*.lora_B", .lr_scale = config.tune.loraplus_lr_ratio});
  return optim;
}

Trained count_trained(const model::ModelSpec& spec, const config::TuneConfig& tune) {
  Trained count;
  for (const auto& [entry, frozen, quantized] : model::tuned_table(spec, tune)) {
    count.all += entry.elements();
    if (!frozen && !entry.buffer) count.elements += entry.elements();
  }
  return count;
}

}  // namespace qianli::tune
