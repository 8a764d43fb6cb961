// Everything a training run holds, built from its configuration.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "qianli/checkpoint/saver.h"
#include "qianli/config/config.h"
#include "qianli/data/batch_source.h"
#include "qianli/device/device.h"
#include "qianli/nn/decoder.h"
#include "qianli/nn/parameter_set.h"
#include "qianli/optim/flat_optimizer.h"
#include "qianli/text/tokenizer.h"
#include "qianli/train/metrics.h"
#include "qianli/train/ranks.h"
#include "qianli/train/stage.h"
#include "qianli/train/step.h"
#include "qianli/train/task.h"

namespace qianli::train {

struct Run {
  config::Config config;  // with train.steps, whatever was given
  Ranks ranks;
  c10::Device device;
  device::ComputeType compute;
  model::ModelSpec spec;
  std::shared_ptr<const text::Tokenizer>
      tokenizer;                           // null: the data is tokens already and none was named
  std::filesystem::path tokenizer_folder;  // empty: none
  std::shared_ptr<const data::BatchSource> train_data;
  std::shared_ptr<const data::BatchSource> validation_data;  // null: no evaluation
  std::unique_ptr<nn::ParameterSet> parameters;
  plan::Stages stages;
  Chunks chunks;
  std::unique_ptr<optim::FlatOptimizer> optimizer;
  std::unique_ptr<Step> step;
  std::unique_ptr<checkpoint::Saver> saver;
  std::unique_ptr<Metrics> metrics;  // of the first rank
  int64_t first_step = 0;            // steps done before this start
  double flops_per_token = 0;
  bool counts_labels = false;  // Task::counts_labels
};

// Opens or makes all parts; resumes from the last checkpoint where the configuration says so.
Run build_run(const Task& task, const config::Config& config);

// What a checkpoint needs besides the tensors.
formats::TrainingState training_state(const Run& run, int64_t step);

}  // namespace qianli::train
