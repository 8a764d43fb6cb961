// Pretraining from start to end: model, data, optimizer, the loop, checkpoints, report.
#pragma once

#include "qianli/config/config.h"

namespace qianli::train {

// Runs or resumes the run that `config` describes (config::require_for_training holds). Throws
// StoppedError after saving when a signal asked to stop.
void pretrain(const config::Config& config);

}  // namespace qianli::train
