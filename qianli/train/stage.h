// What a rank does of a pipeline: the chunks of its stage, and who takes part in its steps.
#pragma once

#include <memory>
#include <vector>

#include "qianli/plan/stages.h"
#include "qianli/train/ranks.h"
#include "qianli/train/step.h"

namespace qianli::train {

using Chunks = std::vector<std::unique_ptr<nn::Decoder>>;

// Those of ranks.part, in the model's order.
Chunks build_chunks(const model::ModelSpec& spec, nn::ParameterSet& parameters, const Ranks& ranks);
std::vector<nn::Decoder*> pointers(const Chunks& chunks);

StepRanks step_ranks(const Ranks& ranks);
StepOptions step_options(const plan::Stages& stages, const config::OptimConfig& optim,
                         const model::ModelSpec& spec, const nn::ParameterSet& parameters);

}  // namespace qianli::train
