#include "qianli/tune/start.h"

#include <string_view>

#include "qianli/base/error.h"
#include "qianli/model/tuned_table.h"
#include "qianli/nn/layers.h"
#include "qianli/tune/adapter.h"

namespace qianli::tune {
namespace {

constexpr std::string_view kMagnitude = ".lora_magnitude";

// DoRA starts at the lengths that the rows of the weight have.
void measure(nn::ParameterSet& parameters, size_t index) {
  const std::string& name = parameters.entry(index).name;
  const std::string module = name.substr(0, name.size() - kMagnitude.size());
  const nn::Linear linear = nn::find_linear(parameters, module);
  parameters.write(index, 0, ops::row_lengths(*linear.weight, *linear.adapter));
}

}  // namespace

void start_adapters(const config::Config& config, const model::ModelSpec& spec,
                    nn::ParameterSet& parameters) {
  if (!config.tune.lora()) return;
  if (config.tune.use_dora && (config.parallel.tensor > 1 || config.parallel.zero == 3)) {
    throw ConfigError("tune",
                      "expected whole weights on every rank for tune.use_dora, got tensor "
                      "parallelism or parallel.zero=3",
                      "set parallel.tensor=1 and parallel.zero to at most 2");
  }
  if (config.tune.adapter) return load_adapter(*config.tune.adapter, spec, parameters);
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (model::is_adapter(parameters.entry(i).name))
      parameters.initialize(i, static_cast<uint64_t>(config.train.seed));
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (parameters.entry(i).name.ends_with(kMagnitude)) measure(parameters, i);
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
