#include "qianli/plan/schedule.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/plan/collectives.h"
#include "qianli/plan/schedules/families.h"
#include "qianli/plan/weave.h"

namespace qianli::plan {
namespace {

using enum ScheduleKind;

// Lists of a million units have a few million instructions and take a second.
constexpr int64_t kMaxUnits = int64_t{1} << 20;

bool in_ring(ScheduleKind kind) { return kind == kInterleaved || kind == kNanoPipe; }

Program training_program(const ScheduleOptions& options, int64_t stage) {
  switch (options.kind) {
    case kGPipe:
      return gpipe(options, stage);
    case k1F1B:
    case kSeq1F1B:
      return one_f_one_b(options, stage);
    case kZeroBubble:
      return zero_bubble(options, stage);
    case kInterleaved:
    case kNanoPipe:
      return interleaved(options, stage);
    case kDualPipeV:
      return dual_pipe_v(options, stage);
  }
  return {};
}

// Every forward keeps its input alone, but those of the chunk `except`.
void recompute_before_backward(Program& program, int32_t except) {
  Program result;
  for (Instruction instruction : program) {
    const bool kept = instruction.chunk == except;
    if (instruction.op == Op::kForward) instruction.checkpoint = !kept;
    if (!kept && (instruction.op == Op::kBackward || instruction.op == Op::kInputGrad)) {
      result.push_back(
          compute(Op::kRecompute, instruction.chunk, instruction.microbatch, instruction.slice));
      // A recompute between the two would part them.
      if (result.size() > 1 && result[result.size() - 2].paired)
        std::swap(result[result.size() - 1], result[result.size() - 2]);
    }
    result.push_back(instruction);
  }
  program = std::move(result);
}

void add_recompute(const ScheduleOptions& options, int64_t stage, Program& program) {
  constexpr int32_t kNoChunk = -1;
  const bool last = stage == options.stages - 1;
  switch (options.recompute) {
    case Recompute::kNone:
      return;
    case Recompute::kFull:
      return recompute_before_backward(program, kNoChunk);
    case Recompute::kInAdvance:
      return recompute_before_backward(program,
                                       last ? static_cast<int32_t>(options.chunks) - 1 : kNoChunk);
    case Recompute::kInBubble:
      return recompute_in_bubble(options, stage, program);
  }
}

Program compute_program(const ScheduleOptions& options, int64_t stage) {
  Program program = training_program(options, stage);
  if (options.forward_only) {
    std::erase_if(program, [](const Instruction& i) { return i.op != Op::kForward; });
  } else {
    add_recompute(options, stage, program);
  }
  return program;
}

class Problems {
 public:
  template <typename... Arguments>
  void unless(bool holds, fmt::format_string<Arguments...> text, Arguments&&... arguments) {
    if (!holds) found_.push_back(fmt::format(text, std::forward<Arguments>(arguments)...));
  }
  bool any() const { return !found_.empty(); }
  std::vector<std::string> take() { return std::move(found_); }

 private:
  std::vector<std::string> found_;
};

void check_ring(const ScheduleOptions& options, Problems& problems) {
  const int64_t stages = options.stages, count = options.microbatches;
  problems.unless(options.chunks > 1, "expected at least 2 chunks a stage, got {}", options.chunks);
  problems.unless(stages > 1, "expected at least 2 stages, got {}", stages);
  const int64_t group = options.group_size == 0 ? stages : options.group_size;
  if (group < stages || group > count) {
    problems.unless(false, "expected groups of {} (stages) to {} (microbatches), got {}", stages,
                    count, group);
  } else {
    const int64_t rest = count % group;
    problems.unless(
        rest == 0 || rest >= stages,
        "expected a last group of at least {} microbatches (stages), got {} = {} mod {}", stages,
        rest, count, group);
  }
  if (options.kind == kNanoPipe)
    problems.unless(stages > 2, "expected at least 3 stages for nanopipe, got {}", stages);
}

void check_recompute(const ScheduleOptions& options, Problems& problems) {
  if (options.recompute == Recompute::kNone || options.recompute == Recompute::kFull) return;
  problems.unless(options.kind == kInterleaved,
                  "recompute in advance or in the bubble needs the interleaved schedule");
  if (options.recompute != Recompute::kInBubble) return;
  problems.unless(options.group_size == 0 || options.group_size == options.stages,
                  "recompute in the bubble needs groups as large as stages, got {}",
                  options.group_size);
  problems.unless(options.microbatches % options.stages == 0,
                  "recompute in the bubble needs microbatches a multiple of {} stages, got {}",
                  options.stages, options.microbatches);
}

// Options that this family does not have.
void check_foreign(const ScheduleOptions& options, Problems& problems) {
  const bool ring = in_ring(options.kind), v = options.kind == kDualPipeV;
  problems.unless(ring || options.group_size == 0,
                  "only interleaved schedules have microbatch groups, got {}", options.group_size);
  problems.unless(ring || options.chunks == 1 || (v && options.chunks == 2),
                  "expected {} a stage, got {}", v ? "2 chunks" : "1 chunk", options.chunks);
  problems.unless(options.kind == kSeq1F1B || options.slices == 1,
                  "only seq1f1b cuts microbatches into slices, got {}", options.slices);
  problems.unless(!options.forward_only || (options.recompute == Recompute::kNone &&
                                            !options.merge_pairs && !options.detach_weight_grads),
                  "expected no recompute, merging or detaching where nothing goes back");
  problems.unless(v || !options.merge_pairs, "only dualpipev merges forwards and backwards");
  problems.unless(v || !options.detach_weight_grads, "only dualpipev detaches weight gradients");
}

}  // namespace

bool is_compute(Op op) { return op <= Op::kWeightGrad; }
bool is_message(Op op) { return op >= Op::kSendActivation && op <= Op::kReceiveGradient; }
bool is_send(Op op) { return op == Op::kSendActivation || op == Op::kSendGradient; }

std::string name(const Instruction& instruction) {
  static constexpr const char* kWords[] = {"F",      "R",         "B",      "b",         "W",
                                           "send F", "receive F", "send B", "receive B", "hand F",
                                           "hand B", "reduce ",   "gather "};
  const Op op = instruction.op;
  std::string text = fmt::format("{}{}", kWords[static_cast<size_t>(op)], instruction.chunk);
  if (op >= Op::kReduceGradients) return text;
  text += fmt::format(".{}", instruction.microbatch);
  if (instruction.slice > 0) text += fmt::format("/{}", instruction.slice);
  if (op <= Op::kWeightGrad) return text;
  return text + fmt::format(" {} {}.{}", is_message(op) && !is_send(op) ? "from" : "to",
                            instruction.peer, instruction.peer_chunk);
}

Flow ring_flow(int64_t stages, int64_t chunks) {
  Flow flow;
  for (int64_t place = 0; place < stages * chunks; ++place) {
    flow.push_back({static_cast<int32_t>(place % stages), static_cast<int32_t>(place / stages)});
  }
  return flow;
}

Flow v_flow(int64_t stages) {
  Flow flow = ring_flow(stages, 1);
  for (int64_t stage = stages - 1; stage >= 0; --stage)
    flow.push_back({static_cast<int32_t>(stage), 1});
  return flow;
}

Places::Places(const Schedule& schedule)
    : chunks_(schedule.chunks),
      places_(static_cast<size_t>(schedule.stages) * static_cast<size_t>(schedule.chunks), -1) {
  for (size_t i = 0; i < schedule.flow.size(); ++i) {
    const Place& place = schedule.flow[i];
    places_[static_cast<size_t>(place.stage * chunks_ + place.chunk)] = static_cast<int32_t>(i);
  }
}

const std::vector<NamedSchedule>& schedule_names() {
  static const std::vector<NamedSchedule> kNames = {
      {kGPipe, "gpipe", "GPipe"},
      {k1F1B, "1f1b", "1F1B"},
      {kInterleaved, "interleaved", "Interleaved 1F1B"},
      {kZeroBubble, "zb-h1", "Zero bubble H1"},
      {kNanoPipe, "nanopipe", "Nano-pipe"},
      {kDualPipeV, "dualpipev", "DualPipe-V"},
      {kSeq1F1B, "seq1f1b", "Seq1F1B"},
  };
  return kNames;
}

ScheduleKind schedule_kind(const std::string& name) {
  std::vector<std::string> names;
  for (const NamedSchedule& known : schedule_names()) {
    if (name == known.name) return known.kind;
    names.emplace_back(known.name);
  }
  throw ConfigError("schedule", fmt::format("expected one of {}, got '{}'{}",
                                            fmt::join(names, ", "), name, suggestion(name, names)));
}

std::vector<std::string> schedule_problems(const ScheduleOptions& options) {
  Problems problems;
  for (const auto& [name, value] : {std::pair{"stages", options.stages},
                                    {"microbatches", options.microbatches},
                                    {"chunks", options.chunks},
                                    {"slices", options.slices}}) {
    problems.unless(value >= 1 && value <= kMaxUnits, "expected {} between 1 and {}, got {}", name,
                    kMaxUnits, value);
  }
  problems.unless(options.group_size >= 0 && options.group_size <= kMaxUnits,
                  "expected a group size between 0 and {}, got {}", kMaxUnits, options.group_size);
  if (problems.any()) return problems.take();
  const double units = static_cast<double>(options.stages) * static_cast<double>(options.chunks) *
                       static_cast<double>(options.microbatches) *
                       static_cast<double>(options.slices);
  problems.unless(units <= kMaxUnits,
                  "expected stages x chunks x microbatches x slices of at most {}, got {:.0f}",
                  kMaxUnits, units);
  check_foreign(options, problems);
  check_recompute(options, problems);
  if (in_ring(options.kind)) check_ring(options, problems);
  if (options.kind == kDualPipeV) {
    problems.unless(options.stages > 1, "expected at least 2 stages for dualpipev, got {}",
                    options.stages);
    problems.unless(options.microbatches >= 2 * options.stages - 1,
                    "expected at least {} microbatches (2 x stages - 1) for dualpipev, got {}",
                    2 * options.stages - 1, options.microbatches);
  }
  return problems.take();
}

Schedule make_schedule(const ScheduleOptions& given) {
  ScheduleOptions options = given;
  if (options.kind == kDualPipeV && options.chunks == 1) options.chunks = 2;
  const auto problems = schedule_problems(options);
  if (!problems.empty())
    throw ConfigError("schedule", fmt::format("{}", fmt::join(problems, "; ")));
  Schedule schedule{.stages = static_cast<int32_t>(options.stages),
                    .chunks = static_cast<int32_t>(options.chunks),
                    .microbatches = static_cast<int32_t>(options.microbatches),
                    .slices = static_cast<int32_t>(options.slices),
                    .forward_only = options.forward_only,
                    .flow = options.kind == kDualPipeV ? v_flow(options.stages)
                                                       : ring_flow(options.stages, options.chunks)};
  for (int64_t stage = 0; stage < options.stages; ++stage) {
    Program program = compute_program(options, stage);
    add_collectives(program, schedule.chunks,
                    in_ring(options.kind) && options.align_collectives ? stage : 0);
    schedule.programs.push_back(std::move(program));
  }
  weave_messages(schedule);
  return schedule;
}

}  // namespace qianli::plan
