#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iterator>
#include <memory>

#include "apps/qianli/command.h"
#include "apps/qianli/compare_print.h"
#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/progress.h"
#include "qianli/convert/checkpoint/reader.h"
#include "qianli/formats/checkpoint_folder.h"

namespace qianli::app {
namespace {

constexpr char kConfigName[] = "config.yaml";

struct Options {
  std::string a, b;
  double tolerance = 0;
  size_t limit = 10;
  bool json = false;
  convert::CompareOptions models;
};

enum class Kind { kRun, kModel };

Kind kind_of(const fs::path& path) {
  if (fs::exists(path / runs::kMetricsName)) return Kind::kRun;
  if (convert::is_model(path)) return Kind::kModel;
  if (fs::exists(path / kConfigName)) return Kind::kRun;  // that has not done a step
  throw CheckpointError(
      "compare", fmt::format("expected a run or a model, got {}", path.string()),
      "a run is the folder with metrics.jsonl; a model is all that `qianli convert` reads");
}

// A run stands for its last checkpoint where the other side is a model.
void expect_checkpoint(const std::string& run, const std::string& model) {
  if (convert::step_folder(run)) return;
  throw ConfigError("compare", fmt::format("expected two runs or two models, got the run {} "
                                           "without a checkpoint and the model {}",
                                           run, model));
}

convert::ModelComparison compare_models(const fs::path& a, const fs::path& b,
                                        const Options& options) {
  std::unique_ptr<Progress> progress;
  const convert::ProgressFunction shown = [&](uint64_t done, uint64_t total) {
    if (!progress) progress = std::make_unique<Progress>("comparing", total, "bytes");
    progress->update(done);
  };
  auto found = convert::compare_models(a, b, options.models, shown);
  if (progress) progress->finish();
  return found;
}

// The last step that both have a whole checkpoint of.
std::optional<int64_t> last_common_step(const fs::path& a, const fs::path& b) {
  const auto of_a = formats::steps_in(a), of_b = formats::steps_in(b);
  std::vector<int64_t> common;
  std::ranges::set_intersection(of_a, of_b, std::back_inserter(common));
  const auto whole = [](const fs::path& folder) { return formats::is_checkpoint(folder); };
  while (!common.empty() && !(whole(a / formats::step_name(common.back())) &&
                              whole(b / formats::step_name(common.back()))))
    common.pop_back();
  return common.empty() ? std::nullopt : std::optional(common.back());
}

Comparison compare_runs(const Options& options) {
  Comparison found{.tolerance = options.tolerance, .a = options.a, .b = options.b};
  const fs::path a = options.a, b = options.b;
  if (fs::exists(a / kConfigName) && fs::exists(b / kConfigName)) {
    const auto text = [](const fs::path& run) {
      return read_file(run / kConfigName, FileRole::kConfig, uint64_t{1} << 20);
    };
    found.settings = runs::compare_configs(text(a), (a / kConfigName).string(), text(b),
                                           (b / kConfigName).string());
  }
  found.metrics =
      runs::compare_metrics(runs::MetricsReader::open(a / runs::kMetricsName),
                            runs::MetricsReader::open(b / runs::kMetricsName), options.tolerance);
  const fs::path checkpoints_a = a / "checkpoints", checkpoints_b = b / "checkpoints";
  if (const auto step = last_common_step(checkpoints_a, checkpoints_b)) {
    const std::string name = formats::step_name(*step);
    found.models = compare_models(checkpoints_a / name, checkpoints_b / name, options);
  }
  return found;
}

Comparison compare(const Options& options) {
  const Kind a = kind_of(options.a), b = kind_of(options.b);
  if (a == Kind::kRun && b == Kind::kRun) return compare_runs(options);
  if (a == Kind::kRun) expect_checkpoint(options.a, options.b);
  if (b == Kind::kRun) expect_checkpoint(options.b, options.a);
  Comparison found{.tolerance = options.tolerance, .a = options.a, .b = options.b};
  found.models = compare_models(options.a, options.b, options);
  const auto& [config_a, config_b] = std::pair(found.models->config_a, found.models->config_b);
  if (!config_a.empty() && !config_b.empty())
    found.settings = runs::compare_configs(config_a, options.a, config_b, options.b);
  return found;
}

void run(const Options& options) {
  if (!(options.tolerance >= 0) || !std::isfinite(options.tolerance)) {
    throw ConfigError("compare",
                      fmt::format("expected --tolerance from 0, got {}", options.tolerance));
  }
  const Comparison found = compare(options);
  if (options.json)
    fmt::print("{}\n", comparison_json(found, options.limit).dump(2));
  else
    print_comparison(found, options.limit);
  if (!found.equal()) throw EndWith{kDifferent};
}

}  // namespace

void add_compare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "compare", "Two runs, checkpoints or models: the first difference, where, how big.");
  const std::string operand =
      "Run (folder with metrics.jsonl) or model (Qianli checkpoint, Hugging Face folder, Megatron "
      "checkpoint, MindSpore's .ckpt, GGUF file); beside a model, a run is its last checkpoint";
  command->add_option("A", options->a, operand)->required();
  command->add_option("B", options->b, "The same kind")->required();
  command->add_option("--tolerance", options->tolerance,
                      "Relative difference that is none: of metrics to the larger number, of "
                      "tensors to their largest; 0: every bit counts [0]");
  command->add_option("--limit", options->limit, "Most lines of a table [10]");
  command->add_flag("--weights-only", options->models.weights_only,
                    "Of checkpoints the weights alone, without optimizer and training state");
  command->add_option("--config", options->models.from.config,
                      "Folder with the model's config.json, or a preset: for weights that do not "
                      "say what they are of");
  command->add_flag("--json", options->json, "Print all that was found as JSON");
  command->footer(
      "Ends with 0 where they are equal within the tolerance, with 1 where they differ.\n"
      "Settings that differ are shown and make no difference by themselves.");
  command->callback([options] { run(*options); });
}

}  // namespace qianli::app
