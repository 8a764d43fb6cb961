#include "apps/qianli/planned_schedule.h"

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "qianli/base/file.h"
#include "qianli/plan/draw.h"

namespace qianli::app {
namespace {

const plan::NamedSchedule& name_of(plan::ScheduleKind kind) {
  return *std::ranges::find(plan::schedule_names(), kind, &plan::NamedSchedule::kind);
}

std::string heading(const PlannedSchedule& made) {
  std::string text =
      fmt::format("{}: {} stage{}, {} microbatch{}", made.name->title, made.schedule.stages,
                  made.schedule.stages == 1 ? "" : "s", made.schedule.microbatches,
                  made.schedule.microbatches == 1 ? "" : "es");
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

plan::TextStyle text_style() {
  winsize size{};
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  const bool sized = terminal && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
  return {.width = sized && size.ws_col >= 40 ? size.ws_col : 120, .colour = terminal};
}

}  // namespace

std::vector<double> PlannedSchedule::peaks() const {
  std::vector<double> of;
  for (const int64_t peak : proof.peak_activations)
    of.push_back(static_cast<double>(peak) / units());
  return of;
}

double PlannedSchedule::peak() const { return std::ranges::max(peaks()); }

PlannedSchedule plan_schedule(const plan::ScheduleOptions& options, const StageTimes& stage,
                              plan::Transfer transfer) {
  PlannedSchedule made{.name = &name_of(options.kind), .schedule = plan::make_schedule(options)};
  made.proof = plan::prove(made.schedule);
  if (!made.proof.problems.empty())
    throw std::logic_error("schedule without proof: " + made.proof.problems.front());
  const double part = 1 / made.units();
  const plan::Times times{
      .chunks = {{stage.forward * part, stage.input_grad * part, stage.weight_grad * part}},
      .message = stage.message,
      .pair = stage.pair};
  made.line = plan::simulate(made.schedule, times, transfer);
  made.ideal = *std::ranges::max_element(made.line.busy);
  return made;
}

OrderedJson summary_json(const PlannedSchedule& made) {
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

OrderedJson schedule_json(const PlannedSchedule& made) {
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
  return json;
}

void print_picture(const PlannedSchedule& made) {
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

void write_svg(const PlannedSchedule& made, const std::string& file) {
  write_file_atomically(file, plan::draw_svg(made.schedule, made.line, heading(made)),
                        FileRole::kData);
}

}  // namespace qianli::app
