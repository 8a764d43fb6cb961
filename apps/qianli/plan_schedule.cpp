#include <fmt/core.h>
#include <fmt/ranges.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/qianli/command.h"
#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/plan/draw.h"
#include "qianli/plan/prove.h"
#include "qianli/plan/schedule.h"
#include "qianli/plan/simulate.h"

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

// Of one microbatch on one stage, all its chunks together.
struct StageTimes {
  double forward, input_grad, weight_grad, message, pair;
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

// A schedule with all that is known about it.
struct Plan {
  const plan::NamedSchedule* name;
  plan::Schedule schedule;
  plan::Proof proof;
  plan::Timeline line;
  double ideal = 0;  // makespan without any bubble

  // Units of the schedule in a microbatch of a whole stage.
  double units() const { return static_cast<double>(schedule.chunks) * schedule.slices; }
  double peak() const {
    return static_cast<double>(std::ranges::max(proof.peak_activations)) / units();
  }
  std::vector<double> peaks() const {
    std::vector<double> of;
    for (const int64_t peak : proof.peak_activations)
      of.push_back(static_cast<double>(peak) / units());
    return of;
  }
};

Plan make_plan(const Options& options, const plan::NamedSchedule& name,
               plan::ScheduleOptions wanted) {
  wanted.kind = name.kind;
  wanted.recompute = options.recompute;
  Plan made{.name = &name, .schedule = plan::make_schedule(wanted)};
  made.proof = plan::prove(made.schedule);
  if (!made.proof.problems.empty())
    throw std::logic_error("schedule without proof: " + made.proof.problems.front());
  const StageTimes stage = parse_times(options.times);
  const double part = 1 / made.units();
  const plan::Times times{
      .chunks = {{stage.forward * part, stage.input_grad * part, stage.weight_grad * part}},
      .message = stage.message,
      .pair = stage.pair};
  made.line = plan::simulate(made.schedule, times, options.transfer);
  made.ideal = *std::ranges::max_element(made.line.busy);
  return made;
}

const plan::NamedSchedule& name_of(plan::ScheduleKind kind) {
  return *std::ranges::find(plan::schedule_names(), kind, &plan::NamedSchedule::kind);
}

std::string heading(const Plan& made) {
  std::string text = fmt::format("{}: {} stages, {} microbatches", made.name->title,
                                 made.schedule.stages, made.schedule.microbatches);
  if (made.schedule.chunks > 1) text += fmt::format(", {} chunks a stage", made.schedule.chunks);
  if (made.schedule.slices > 1) text += fmt::format(", {} slices", made.schedule.slices);
  return text;
}

const char* word(plan::Op op) {
  static constexpr const char* kWords[] = {"forward",
                                           "recompute",
                                           "backward",
                                           "input_grad",
                                           "weight_grad",
                                           "send_activation",
                                           "receive_activation",
                                           "send_gradient",
                                           "receive_gradient",
                                           "hand_over_activation",
                                           "hand_over_gradient",
                                           "reduce_gradients",
                                           "gather_parameters"};
  return kWords[static_cast<size_t>(op)];
}

OrderedJson instruction_json(const plan::Instruction& instruction, const plan::Span& span) {
  OrderedJson json = {{"op", word(instruction.op)}, {"chunk", instruction.chunk}};
  if (instruction.op < plan::Op::kReduceGradients) {
    json["microbatch"] = instruction.microbatch;
    json["slice"] = instruction.slice;
  }
  if (instruction.peer >= 0) {
    json["peer"] = instruction.peer;
    json["peer_chunk"] = instruction.peer_chunk;
  }
  if (instruction.checkpoint) json["checkpoint"] = true;
  if (instruction.paired) json["paired"] = true;
  json["begin"] = span.begin;
  json["end"] = span.end;
  return json;
}

OrderedJson summary_json(const Plan& made) {
  return {{"kind", made.name->name},
          {"stages", made.schedule.stages},
          {"microbatches", made.schedule.microbatches},
          {"chunks", made.schedule.chunks},
          {"slices", made.schedule.slices},
          {"makespan", made.line.makespan},
          {"ideal", made.ideal},
          {"bubble", made.line.bubble()},
          {"peak_activations", made.proof.peak_activations},
          {"peak_inputs", made.proof.peak_inputs},
          {"peak_waiting", made.proof.peak_waiting},
          {"peak_microbatches", made.peaks()}};
}

void print_json(const Plan& made) {
  OrderedJson json = summary_json(made);
  json["flow"] = OrderedJson::array();
  for (const plan::Place& place : made.schedule.flow)
    json["flow"].push_back({{"stage", place.stage}, {"chunk", place.chunk}});
  json["programs"] = OrderedJson::array();
  for (size_t stage = 0; stage < made.schedule.programs.size(); ++stage) {
    const plan::Program& program = made.schedule.programs[stage];
    auto list = OrderedJson::array();
    for (size_t i = 0; i < program.size(); ++i)
      list.push_back(instruction_json(program[i], made.line.spans[stage][i]));
    json["programs"].push_back(std::move(list));
  }
  fmt::print("{}\n", json.dump());
}

plan::TextStyle text_style() {
  winsize size{};
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  const bool sized = terminal && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
  return {.width = sized && size.ws_col >= 40 ? size.ws_col : 120, .colour = terminal};
}

void print_picture(const Plan& made) {
  size_t instructions = 0;
  for (const plan::Program& program : made.schedule.programs) instructions += program.size();
  const double lost = made.line.makespan - made.ideal;
  fmt::print("{}\n\n{}\n", heading(made), plan::draw_text(made.schedule, made.line, text_style()));
  fmt::print("makespan  {:.6g}, of which {:.6g} is work and {:.6g} is waiting\n",
             made.line.makespan, made.ideal, lost);
  fmt::print("bubble    {:.1f} % of all stages' time\n", 100 * made.line.bubble());
  fmt::print("peak      {:g} microbatches of activations, stage by stage\n",
             fmt::join(made.peaks(), " "));
  if (std::ranges::max(made.proof.peak_inputs) > 0)
    fmt::print("inputs    {} kept for recompute\n", fmt::join(made.proof.peak_inputs, " "));
  fmt::print(
      "proof     {} instructions: nothing is missing, nothing comes too early, nobody waits "
      "forever\n",
      instructions);
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
  std::vector<Plan> plans;
  std::vector<std::string> refused;
  for (const plan::NamedSchedule& name : plan::schedule_names()) {
    const plan::ScheduleOptions wanted = adapted(options, name.kind);
    const auto problems = plan::schedule_problems(wanted);
    if (problems.empty()) {
      plans.push_back(make_plan(options, name, wanted));
    } else {
      refused.push_back(fmt::format("{:<12} {}", name.name, fmt::join(problems, "; ")));
    }
  }
  std::ranges::stable_sort(plans, {}, [](const Plan& made) { return made.line.makespan; });
  if (options.json) {
    auto list = OrderedJson::array();
    for (const Plan& made : plans) list.push_back(summary_json(made));
    return fmt::print("{}\n", list.dump(2));
  }
  fmt::print("{} microbatches through {} stages\n\n", options.schedule.microbatches,
             options.schedule.stages);
  fmt::print("{:<12} {:>6} {:>6} {:>9} {:>8} {:>6}\n", "schedule", "chunks", "slices", "makespan",
             "bubble", "peak");
  for (const Plan& made : plans) {
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
  const Plan made =
      make_plan(options, name_of(plan::schedule_kind(options.kind)), options.schedule);
  if (!options.draw.empty()) {
    write_file_atomically(options.draw, plan::draw_svg(made.schedule, made.line, heading(made)),
                          FileRole::kData);
  }
  options.json ? print_json(made) : print_picture(made);
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
