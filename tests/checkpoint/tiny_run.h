// A small training state to save and load, and what comes back compared with it.
#pragma once

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/checkpoint/saver.h"
#include "qianli/formats/manifest.h"
#include "qianli/model/spec.h"
#include "qianli/nn/parameter_set.h"
#include "qianli/optim/flat_optimizer.h"

namespace qianli::testing {

// One thread for tensor operations: waking others costs more than these small tensors take.
class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

class TinyRun {
 public:
  explicit TinyRun(at::ScalarType dtype = at::kFloat, bool master = false);

  // Values that differ for each seed, tensor and element.
  void fill(int seed);
  // fill(step), and the counts of that step.
  formats::TrainingState at_step(int64_t step);

  const model::ModelSpec& spec() const { return spec_; }
  nn::ParameterSet& parameters() { return *parameters_; }
  optim::FlatOptimizer& optimizer() { return *optimizer_; }

 private:
  OneThread one_thread_;
  model::ModelSpec spec_;
  std::unique_ptr<nn::ParameterSet> parameters_;
  std::unique_ptr<optim::FlatOptimizer> optimizer_;
};

formats::TrainingState state_of(int64_t step);

// Bit for bit: the weights, and the states unless `weights_only`.
::testing::AssertionResult same_tensors(TinyRun& a, TinyRun& b);
::testing::AssertionResult same_weights(const nn::ParameterSet& a, const nn::ParameterSet& b);

// Options for synchronous saves into several shards.
checkpoint::SaverOptions saver_options(const std::filesystem::path& folder, TinyRun& run);
// One synchronous save of run.at_step(step).
void save_step(const std::filesystem::path& folder, TinyRun& run, int64_t step);
// Loads a checkpoint into fresh tensors and compares them with those of its own step.
::testing::AssertionResult loads_as_saved(const std::filesystem::path& step_folder,
                                          int64_t expected_step);

// The message of the CheckpointError that `action` throws; fails the test where it throws none.
std::string checkpoint_error(const std::function<void()>& action);

void edit_json(const std::filesystem::path& path, const std::function<void(Json&)>& edit);
std::string read_text(const std::filesystem::path& path);
void write_text(const std::filesystem::path& path, const std::string& text);

}  // namespace qianli::testing
