// Training from start to end, whatever the task: model, data, optimizer, the loop, checkpoints,
// report.
#pragma once

#include "qianli/config/config.h"
#include "qianli/train/task.h"

namespace qianli::train {

// Runs or resumes the run that `config` describes (config::require_for_training holds). Throws
// StoppedError after saving when a signal asked to stop.
void run_task(const Task& task, const config::Config& config);

}  // namespace qianli::train
