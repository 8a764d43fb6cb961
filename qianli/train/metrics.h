// What a run tells while it goes: metrics.jsonl, TensorBoard events, and lines on the terminal.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "qianli/base/progress.h"
#include "qianli/config/sections.h"
#include "qianli/nn/mixture_of_experts.h"

namespace qianli::formats {
class EventWriter;
}

namespace qianli::train {

// Of the validation after a step.
struct Validation {
  double loss = 0;
  std::optional<double> accuracy;  // share of labels that are the likeliest token
};

// Of the tokens of a step that have a label, where a task counts them.
struct LabelMetrics {
  double tokens = 0;
  double accuracy = 0;  // share of them whose label is the likeliest token
};

struct StepMetrics {
  int64_t step = 0;  // 1 for the first
  double loss = 0;
  double lr = 0;
  double gradient_norm = 0;
  int64_t tokens = 0;  // of this step
  double step_seconds = 0;
  double mfu = 0;               // model FLOPs per second over the measured GEMM peak
  uint64_t memory_bytes = 0;    // peak of tensor memory so far
  std::optional<double> epoch;  // passes over the samples so far, where there are such
  std::optional<LabelMetrics> labels;
  std::optional<Validation> validation;    // where this step was followed by one
  std::optional<nn::StepRouting> routing;  // of a model with mixtures of experts
  std::optional<double> indexer_loss;      // of a model whose indexers learn
};

class Metrics {
 public:
  // Opens the files in `run_folder`; `tokens_per_step` is a mean. Lines of metrics.jsonl behind
  // `first_step` (a run that went further than the checkpoint it resumes from) are dropped, so that
  // every step stands there once.
  Metrics(const std::filesystem::path& run_folder, const config::LogConfig& config,
          int64_t first_step, int64_t total_steps, double tokens_per_step);
  ~Metrics();

  // One line of metrics.jsonl, with all that is known of the step.
  void record(const StepMetrics& metrics);
  void finish();

 private:
  void append(const std::string& line);
  void add_events(const StepMetrics& metrics, double tokens_per_second);
  void show(const StepMetrics& metrics, double tokens_per_second);
  std::filesystem::path path_;
  config::LogConfig config_;
  int64_t total_steps_;
  double tokens_per_step_;
  int64_t tokens_seen_;
  int file_ = -1;
  std::unique_ptr<formats::EventWriter> events_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace qianli::train
