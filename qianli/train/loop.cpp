#include "qianli/train/loop.h"

#include <fmt/core.h>

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/log.h"
#include "qianli/base/trace.h"
#include "qianli/convert/model_source.h"
#include "qianli/convert/write_model.h"
#include "qianli/ops/peak.h"
#include "qianli/train/report.h"
#include "qianli/train/setup.h"

namespace qianli::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Share of the FLOP/s that a perfect run would reach: the given ones of a device, or the measured
// GEMM rate of this rank.
double utilisation(const Run& run, int64_t tokens, double seconds) {
  const double reached = run.flops_per_token * static_cast<double>(tokens) / seconds /
                         static_cast<double>(run.ranks.world.size());
  const double peak = run.config.log.peak_tflops
                          ? *run.config.log.peak_tflops * 1e12
                          : ops::peak_flops(run.device, run.compute.dtype, reached);
  return reached / peak;
}

// Means over the validation batches of all ranks; nothing where they count no token.
std::optional<Validation> evaluate(Run& run) {
  const trace::Span span([] { return std::string("evaluation"); });
  double loss = 0, tokens = 0, correct = 0;
  const int64_t batches = std::min(run.config.train.eval_batches, run.validation_data->num_steps());
  for (int64_t i = 0; i < batches; ++i) {
    const auto part = run.step->evaluate(run.validation_data->microbatches(i));
    loss += part.loss_sum;
    tokens += part.tokens;
    correct += part.correct;
  }
  const auto sums = run.step->sum({loss, tokens, correct});
  if (sums[1] == 0) return std::nullopt;
  Validation validation{.loss = sums[0] / sums[1]};
  if (run.counts_labels) validation.accuracy = sums[2] / sums[1];
  return validation;
}

void record(Run& run, int64_t step, const StepResult& result, double seconds,
            std::optional<Validation> validation) {
  if (!run.metrics) return;
  std::optional<LabelMetrics> labels;
  if (run.counts_labels)
    labels = {.tokens = result.labels,
              .accuracy = result.labels > 0 ? result.correct / result.labels : 0.0};
  run.metrics->record({.step = step,
                       .loss = result.loss,
                       .lr = result.lr,
                       .gradient_norm = result.gradient_norm,
                       .tokens = result.tokens,
                       .step_seconds = seconds,
                       .mfu = utilisation(run, result.tokens, seconds),
                       .memory_bytes = device::memory(run.device).peak_bytes,
                       .epoch = run.train_data->epochs_after(step),
                       .labels = labels,
                       .validation = validation,
                       .routing = result.routing,
                       .indexer_loss = result.indexer_loss});
}

bool due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

[[noreturn]] void stop(Run& run, int64_t step) {
  run.saver->save(training_state(run, step), *run.parameters, *run.optimizer);
  run.saver->wait();
  if (run.config.log.report && run.ranks.first()) write_report(run.config.run.dir);
  throw StoppedError(
      "train",
      fmt::format("stopped after step {} of {}, everything saved", step, run.config.train.steps),
      "run the same command again to go on");
}

// Where everything is, and what to type next.
void tell_results(const Run& run) {
  const std::filesystem::path folder = run.config.run.dir;
  const auto last = folder / "checkpoints" / fmt::format("step_{}", run.config.train.steps);
  if (run.config.log.report) log::say("report      " + (folder / "report.html").string());
  if (!run.config.checkpoint.save_final) return;
  log::say("checkpoint  " + last.string());
  if (run.tokenizer)
    log::say(fmt::format("try it      qianli generate {} --prompt \"…\"", last.string()));
}

// From the last checkpoint, because no rank may have the whole model.
void write_hugging_face(const std::filesystem::path& run_folder, int64_t step) {
  const auto folder = run_folder / "hugging_face";
  std::filesystem::remove_all(folder);
  const auto model = convert::open_model(run_folder / "checkpoints" / fmt::format("step_{}", step));
  convert::write_hugging_face(*model, folder, {.dtype = formats::Dtype::kBF16}, {});
}

void write_trace(const Run& run, const trace::Recorder& recorder) {
  const auto folder = std::filesystem::path(run.config.run.dir) / "trace";
  std::filesystem::create_directories(folder);
  const int64_t rank = run.ranks.world.rank();
  write_file_atomically(folder / fmt::format("rank_{:05}.json", rank), recorder.json(rank),
                        FileRole::kData);
}

void finish(Run& run) {
  const trace::Span span([] { return std::string("finish"); });
  const int64_t last = run.config.train.steps;
  if (run.config.checkpoint.save_final)
    run.saver->save(training_state(run, last), *run.parameters, *run.optimizer);
  run.saver->wait();
  if (!run.ranks.first()) return;
  if (run.config.checkpoint.hugging_face) write_hugging_face(run.config.run.dir, last);
  run.metrics->finish();
  if (run.config.log.report) write_report(run.config.run.dir);
  tell_results(run);
}

}  // namespace

void run_task(const Task& task, const config::Config& given) {
  if (launch::rank_environment(launch::process_environment()).is_scheduler) return;
  Run run = build_run(task, given);
  const config::Config& config = run.config;
  const int64_t steps = config.train.steps;
  const int64_t trace_start = config.log.trace_step_start;
  const int64_t trace_end = std::max(trace_start, config.log.trace_step_end);
  std::shared_ptr<trace::Recorder> recorder;
  data::BatchPrefetcher batches(run.train_data, run.first_step, steps);
  for (int64_t step = run.first_step + 1; step <= steps; ++step) {
    const trace::Span span([&] { return fmt::format("step {}", step); });
    const auto begin = Clock::now();
    if (step == trace_start) recorder = std::make_shared<trace::Recorder>();
    const StepResult result = [&] {
      const trace::Use use(recorder);
      return run.step->run(batches.next());
    }();
    if (recorder && (step == trace_end || step == steps))
      write_trace(run, *std::exchange(recorder, {}));
    const double seconds = seconds_since(begin);
    const bool evaluates = run.validation_data && due(config.train.eval_every, step);
    record(run, step, result, seconds, evaluates ? evaluate(run) : std::nullopt);
    if (result.stop && step < steps) stop(run, step);
    if (due(config.checkpoint.every, step) && step < steps) {
      run.saver->save(training_state(run, step), *run.parameters, *run.optimizer);
    }
  }
  finish(run);
}

}  // namespace qianli::train
