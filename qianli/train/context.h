// What the configuration says about ranks that share sequences, and whether the model can.
#pragma once

#include "qianli/config/config.h"
#include "qianli/data/context_deal.h"
#include "qianli/model/spec.h"

namespace qianli::train {

// Of the ranks that attend together: those of a context group, and of two-dimensional tensor
// parallelism those that hold other tokens within a block.
data::ContextOptions context_options(const config::ParallelConfig& parallel);
// With what dealing out the tokens needs to know of the model's masks.
data::ContextOptions context_options(const config::ParallelConfig& parallel,
                                     const model::ModelSpec& spec);

// Throw ConfigError that names everything in the way of ranks that share sequences, and of
// parallel.schedule_slices > 1.
void check_context(const config::Config& config, const model::ModelSpec& spec);
void check_slices(const config::Config& config, const model::ModelSpec& spec);

}  // namespace qianli::train
