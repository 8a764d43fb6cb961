#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "apps/qianli/command.h"
#include "apps/qianli/planned_schedule.h"
#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/config/config.h"
#include "qianli/plan/mesh.h"
#include "qianli/plan/sharing.h"
#include "qianli/plan/stages.h"

namespace qianli::app {
namespace {

constexpr int64_t kMaxRanks = int64_t{1} << 31;

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  int64_t ranks = 0;  // 0: one replica
  std::string draw;
  bool json = false;
};

// How a configuration divides its work.
struct Layout {
  plan::MeshSizes sizes;
  int64_t replicas = 1;
  int64_t global_batch_size = 1, micro_batch_size = 1;
  int64_t microbatches = 1;  // of a replica in a step
};

// The ranks that a replica of the model takes.
int64_t ranks_of_replica(const config::ParallelConfig& parallel) {
  int64_t ranks = 1;
  for (const int64_t size : {parallel.tensor, parallel.context, parallel.pipeline}) {
    if (size > kMaxRanks / ranks)
      throw ConfigError("plan", fmt::format("expected at most {} ranks, got more", kMaxRanks));
    ranks *= size;
  }
  return ranks;
}

Layout layout_of(const config::Config& config, int64_t ranks) {
  const config::ParallelConfig& parallel = config.parallel;
  const plan::Mesh mesh({.world = ranks > 0 ? ranks : ranks_of_replica(parallel),
                         .tensor = parallel.tensor,
                         .context = parallel.context,
                         .pipeline = parallel.pipeline,
                         .expert = parallel.expert});
  Layout layout{.sizes = mesh.sizes(),
                .replicas = mesh.dense().size(plan::Axis::kData),
                .global_batch_size = *config.train.global_batch_size,
                .micro_batch_size = config.train.micro_batch_size};
  plan::sharing_of(parallel, layout.replicas * parallel.context);
  const int64_t all = layout.global_batch_size / layout.micro_batch_size;
  layout.microbatches = all / layout.replicas;
  if (all % layout.replicas == 0) return layout;
  throw ConfigError(
      "plan",
      fmt::format("expected train.global_batch_size to be a multiple of train.micro_batch_size "
                  "({}) x data-parallel ranks ({}), got {}",
                  layout.micro_batch_size, layout.replicas, layout.global_batch_size),
      "raise it, or plan with another number of --ranks");
}

OrderedJson layout_json(const Layout& layout) {
  return {{"ranks", layout.sizes.world},
          {"data", layout.replicas},
          {"tensor", layout.sizes.tensor},
          {"context", layout.sizes.context},
          {"pipeline", layout.sizes.pipeline},
          {"expert", layout.sizes.expert},
          {"global_batch_size", layout.global_batch_size},
          {"micro_batch_size", layout.micro_batch_size},
          {"microbatches", layout.microbatches}};
}

void print_layout(const Layout& layout) {
  std::string axes = fmt::format("data {}", layout.replicas);
  for (const auto& [name, size] : {std::pair{"tensor", layout.sizes.tensor},
                                   {"context", layout.sizes.context},
                                   {"pipeline", layout.sizes.pipeline}}) {
    if (size > 1) axes += fmt::format(" x {} {}", name, size);
  }
  fmt::print("{} rank{}: {}\n", layout.sizes.world, layout.sizes.world == 1 ? "" : "s", axes);
  fmt::print("{} sequences a step: {} microbatch{} of {} on each data-parallel rank\n\n",
             layout.global_batch_size, layout.microbatches, layout.microbatches == 1 ? "" : "es",
             layout.micro_batch_size);
}

void show(const Options& options) {
  if (options.config.empty()) {
    throw ConfigError("plan", "expected a configuration or the command schedule, got neither",
                      "see `qianli plan --help`");
  }
  const std::vector<std::string> commands = {"schedule"};
  const std::string meant = suggestion(options.config, commands);
  if (!meant.empty() && !fs::exists(options.config)) {
    throw ConfigError("plan",
                      fmt::format("expected a configuration, got '{}'{}", options.config, meant));
  }
  const config::Config config = config::load(options.config, options.overrides);
  const Layout layout = layout_of(config, options.ranks);
  const PlannedSchedule made =
      plan_schedule(plan::configured_schedule(config.parallel, layout.microbatches));
  if (!options.draw.empty()) write_svg(made, options.draw);
  if (options.json) {
    const OrderedJson json = {{"layout", layout_json(layout)}, {"schedule", schedule_json(made)}};
    return fmt::print("{}\n", json.dump());
  }
  print_layout(layout);
  print_picture(made);
}

}  // namespace

void add_plan(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("plan", "Look at a training run before it costs anything.");
  command->require_subcommand(0, 1);
  command->add_option("CONFIG", options->config, "Configuration (YAML)");
  command->add_option("OVERRIDES", options->overrides,
                      "Settings that replace the file's, as parallel.pipeline=4");
  command
      ->add_option("--ranks", options->ranks,
                   "Ranks of the job; those that the layout leaves are data-parallel [one replica]")
      ->check(CLI::Range(int64_t{1}, kMaxRanks, "RANKS"));
  command->add_option("--draw-schedule", options->draw,
                      "Write the pipeline schedule as an SVG file; a stage's forward, input "
                      "gradient and weight gradient of a microbatch count as one each");
  command->add_flag("--json", options->json, "Print numbers and all instructions as JSON");
  add_plan_schedule(*command);
  command->callback([command, options] {
    if (command->get_subcommands().empty()) show(*options);
  });
}

}  // namespace qianli::app
