#include <fmt/core.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/qianli/command.h"
#include "apps/qianli/planned_schedule.h"
#include "qianli/base/error.h"

namespace qianli::app {
namespace {

struct Options {
  std::string kind;
  plan::ScheduleOptions schedule{.stages = 4, .microbatches = 8};
  plan::Recompute recompute = plan::Recompute::kNone;
  plan::Transfer transfer = plan::Transfer::kOverlapped;
  std::string times = "1,1,1,0,1";
  std::string draw;
  bool json = false;
};

StageTimes parse_times(const std::string& text) {
  std::array<double, 5> values{1, 1, 1, 0, 1};
  std::vector<std::string> parts = CLI::detail::split(text, ',');
  bool good = !parts.empty() && parts.size() <= values.size();
  for (size_t i = 0; good && i < parts.size(); ++i) {
    good = CLI::detail::lexical_cast(parts[i], values[i]) && std::isfinite(values[i]) &&
           values[i] <= 1e12 && (i == 3 ? values[i] >= 0 : values[i] >= 1e-12);
  }
  if (!good) {
    throw ConfigError(
        "schedule",
        fmt::format("expected --times FORWARD,INPUT_GRADIENT,WEIGHT_GRADIENT,MESSAGE,PAIR "
                    "as positive numbers (a message may take 0), got '{}'",
                    text));
  }
  return {values[0], values[1], values[2], values[3], values[4]};
}

// Options of a family that the others do not have.
plan::ScheduleOptions adapted(const Options& options, plan::ScheduleKind kind) {
  using enum plan::ScheduleKind;
  plan::ScheduleOptions wanted = options.schedule;
  wanted.kind = kind;
  const bool ring = kind == kInterleaved || kind == kNanoPipe;
  wanted.chunks = ring ? std::max<int64_t>(2, wanted.chunks) : 1;
  if (kind == kDualPipeV) wanted.chunks = 2;
  if (!ring) wanted.group_size = 0;
  wanted.slices = kind == kSeq1F1B ? std::max<int64_t>(2, wanted.slices) : 1;
  wanted.merge_pairs = wanted.detach_weight_grads = false;
  wanted.recompute = options.recompute;
  return wanted;
}

std::string bar(double share, int columns) {
  const int eighths = static_cast<int>(std::lround(share * columns * 8));
  static constexpr const char* kParts[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  std::string text;
  for (int i = 0; i < eighths / 8; ++i) text += "█";
  return text + kParts[eighths % 8];
}

void compare(const Options& options) {
  const StageTimes times = parse_times(options.times);
  std::vector<PlannedSchedule> plans;
  std::vector<std::string> refused;
  for (const plan::NamedSchedule& name : plan::schedule_names()) {
    const plan::ScheduleOptions wanted = adapted(options, name.kind);
    const auto problems = plan::schedule_problems(wanted);
    if (problems.empty()) {
      plans.push_back(plan_schedule(wanted, times, options.transfer));
    } else {
      refused.push_back(fmt::format("{:<12} {}", name.name, fmt::join(problems, "; ")));
    }
  }
  std::ranges::stable_sort(plans, {},
                           [](const PlannedSchedule& made) { return made.line.makespan; });
  if (options.json) {
    auto list = OrderedJson::array();
    for (const PlannedSchedule& made : plans) list.push_back(summary_json(made));
    return fmt::print("{}\n", list.dump(2));
  }
  fmt::print("{} microbatches through {} stages\n\n", options.schedule.microbatches,
             options.schedule.stages);
  fmt::print("{:<12} {:>6} {:>6} {:>9} {:>8} {:>6}\n", "schedule", "chunks", "slices", "makespan",
             "bubble", "peak");
  for (const PlannedSchedule& made : plans) {
    fmt::print("{:<12} {:>6} {:>6} {:>9.5g} {:>6.1f} % {:>6.3g}  {}\n", made.name->name,
               made.schedule.chunks, made.schedule.slices, made.line.makespan,
               100 * made.line.bubble(), made.peak(), bar(made.line.bubble(), 40));
  }
  for (const std::string& reason : refused) fmt::print("{}\n", reason);
  fmt::print(
      "\nPeak: microbatches whose activations the fullest stage holds. See one as a picture: "
      "--kind NAME\n");
}

void show(const Options& options) {
  if (options.kind.empty()) {
    if (!options.draw.empty())
      throw ConfigError("schedule", "expected --kind NAME with --draw, got none");
    return compare(options);
  }
  plan::ScheduleOptions wanted = options.schedule;
  wanted.kind = plan::schedule_kind(options.kind);
  wanted.recompute = options.recompute;
  const PlannedSchedule made = plan_schedule(wanted, parse_times(options.times), options.transfer);
  if (!options.draw.empty()) write_svg(made, options.draw);
  options.json ? fmt::print("{}\n", schedule_json(made).dump()) : print_picture(made);
}

void add_shape(CLI::App& command, Options& options) {
  plan::ScheduleOptions& shape = options.schedule;
  command.add_option(
      "--kind", options.kind,
      "gpipe, 1f1b, interleaved, zb-h1, nanopipe, dualpipev or seq1f1b [compare all]");
  command.add_option("--stages", shape.stages, "Ranks of the pipeline [4]");
  command.add_option("--microbatches", shape.microbatches, "Of one step [8]");
  command.add_option("--chunks", shape.chunks, "Parts of the model on a stage (interleaved) [1]");
  command.add_option("--group", shape.group_size,
                     "Microbatches in a row of one chunk (interleaved) [stages]");
  command.add_option("--slices", shape.slices, "Parts of a sequence (seq1f1b) [1]");
  command
      .add_option("--recompute", options.recompute,
                  "none, full, advance or bubble: which activations are made again [none]")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, plan::Recompute>{{"none", plan::Recompute::kNone},
                                                 {"full", plan::Recompute::kFull},
                                                 {"advance", plan::Recompute::kInAdvance},
                                                 {"bubble", plan::Recompute::kInBubble}}));
  command.add_flag("--merge", shape.merge_pairs,
                   "dualpipev: forwards and backwards run as one where they can");
  command.add_flag("--detach", shape.detach_weight_grads,
                   "dualpipev: weight gradients of the last backwards come later");
}

}  // namespace

void add_plan_schedule(CLI::App& plan) {
  auto options = std::make_shared<Options>();
  CLI::App* command = plan.add_subcommand(
      "schedule", "Draw a pipeline schedule with its bubble and memory, or compare all of them.");
  add_shape(*command, *options);
  command->add_option("--times", options->times,
                      "F,B,W,P2P,PAIR: a stage's forward, input gradient and weight gradient of a "
                      "microbatch, a message, and the share of the sum that a merged forward and "
                      "backward take [1,1,1,0,1]");
  command
      ->add_option("--messages", options->transfer,
                   "overlapped, batched or blocking: beside computation, in exchanges, one by one "
                   "[overlapped]")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, plan::Transfer>{{"overlapped", plan::Transfer::kOverlapped},
                                                {"batched", plan::Transfer::kBatched},
                                                {"blocking", plan::Transfer::kBlocking}}));
  command->add_option("--draw", options->draw, "Write the picture as an SVG file");
  command->add_flag("--json", options->json, "Print numbers and all instructions as JSON");
  command->callback([options] { show(*options); });
}

}  // namespace qianli::app
