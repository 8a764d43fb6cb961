// What the section `tune` asks of a training before its first step.
#pragma once

#include "qianli/config/config.h"
#include "qianli/model/spec.h"
#include "qianli/nn/parameter_set.h"

namespace qianli::tune {

// Adapters from tune.adapter, else A drawn by train.seed and B zero.
void start_adapters(const config::Config& config, const model::ModelSpec& spec,
                    nn::ParameterSet& parameters);

// optim with what LoRA+ says of learning rates, behind the groups that are there.
config::OptimConfig optimizer_of(const config::Config& config);

// Elements that are trained, and all, of the whole model.
struct Trained {
  int64_t elements = 0, all = 0;
};
Trained count_trained(const model::ModelSpec& spec, const config::TuneConfig& tune);

}  // namespace qianli::tune
