// Learning-rate schedules (Megatron-LM's OptimizerParamScheduler).
#pragma once

#include <cstdint>

#include "qianli/config/sections.h"

namespace qianli::optim {

// The learning rate of the update that follows `updates_done` updates. As in Megatron, the first
// update of a run with warm-up uses the rate at 0, which is 0.
double learning_rate(const config::OptimConfig& config, int64_t updates_done);

}  // namespace qianli::optim
