#include "qianli/plan/simulate.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>

namespace qianli::plan {
namespace {

constexpr double kUnknown = -1;

// Messages from one stage to another: when their sender and receiver came to them.
struct Channel {
  std::vector<double> sends, receives;
};

class Walk {
 public:
  Walk(const Schedule& schedule, const Times& times, Transfer transfer)
      : schedule_(schedule), places_(schedule), times_(times), transfer_(transfer) {
    const auto stages = schedule.programs.size();
    next_.resize(stages);
    clock_.resize(stages);
    posted_.resize(stages);
    line_.busy.resize(stages);
    for (const Program& program : schedule.programs) line_.spans.emplace_back(program.size());
    const auto units = schedule.flow.size() * static_cast<size_t>(schedule.units());
    inputs_.assign(units, kUnknown);
    gradients_.assign(units, kUnknown);
  }

  Timeline run() {
    for (size_t stage = clock_.size(); stage-- > 0;) runnable_.push_back(stage);
    while (!runnable_.empty()) {
      const size_t stage = runnable_.back();
      runnable_.pop_back();
      while (next_[stage] < program(stage).size() && step(stage)) {
      }
    }
    for (size_t stage = 0; stage < clock_.size(); ++stage) {
      line_.makespan = std::max(line_.makespan, clock_[stage]);
      if (next_[stage] == program(stage).size()) continue;
      line_.stuck +=
          fmt::format("{}stage {} waits at {} (instruction {})", line_.stuck.empty() ? "" : ", ",
                      stage, name(current(stage)), next_[stage]);
    }
    return std::move(line_);
  }

 private:
  const Program& program(size_t stage) const { return schedule_.programs[stage]; }
  const Instruction& current(size_t stage) const { return program(stage)[next_[stage]]; }
  bool overlapped() const { return transfer_ == Transfer::kOverlapped; }

  size_t place_of(size_t stage, int32_t chunk) const {
    return static_cast<size_t>(places_.of(static_cast<int32_t>(stage), chunk));
  }
  size_t unit(size_t place, const Instruction& of) const {
    return (place * static_cast<size_t>(schedule_.microbatches) +
            static_cast<size_t>(of.microbatch)) *
               static_cast<size_t>(schedule_.slices) +
           static_cast<size_t>(of.slice);
  }

  // Does the stage's next instruction; false: it has to wait.
  bool step(size_t stage) {
    const Instruction& instruction = current(stage);
    if (is_compute(instruction.op)) return compute(stage);
    if (!overlapped() && is_message(instruction.op))
      return transfer_ == Transfer::kBlocking ? meet(stage) : exchange(stage);
    if (!overlapped() && !is_message(instruction.op)) hand_over(stage, instruction);
    finish(stage, clock_[stage], clock_[stage]);
    return true;
  }

  void finish(size_t stage, double begin, double end) {
    line_.spans[stage][next_[stage]++] = {begin, end};
    clock_[stage] = end;
  }

  void hand_over(size_t stage, const Instruction& instruction) {
    const auto place = [&] { return place_of(stage, instruction.peer_chunk); };
    if (instruction.op == Op::kHandOverActivation)
      inputs_[unit(place(), instruction)] = clock_[stage];
    if (instruction.op == Op::kHandOverGradient)
      gradients_[unit(place(), instruction)] = clock_[stage];
  }

  double ready(size_t stage, const Instruction& instruction) const {
    const size_t place = place_of(stage, instruction.chunk);
    const Op op = instruction.op;
    if (op == Op::kForward && place > 0) return inputs_[unit(place, instruction)];
    const bool back = op == Op::kBackward || op == Op::kInputGrad;
    if (back && place + 1 < schedule_.flow.size()) return gradients_[unit(place, instruction)];
    return 0;
  }

  double duration(size_t stage, const Instruction& instruction) const {
    const ChunkTimes& times = times_.at(place_of(stage, instruction.chunk));
    const double factor =
        times_.slices.empty() ? 1 : times_.slices[static_cast<size_t>(instruction.slice)];
    switch (instruction.op) {
      case Op::kForward:
      case Op::kRecompute:
        return factor * times.forward;
      case Op::kBackward:
        return factor * (times.input_grad + times.weight_grad);
      case Op::kInputGrad:
        return factor * times.input_grad;
      default:
        return factor * times.weight_grad;
    }
  }

  bool compute(size_t stage) {
    const size_t first = next_[stage];
    const size_t count = current(stage).paired && first + 1 < program(stage).size() ? 2 : 1;
    double begin = clock_[stage], length = 0;
    for (size_t i = first; i < first + count; ++i) {
      const double input = ready(stage, program(stage)[i]);
      if (input == kUnknown) return false;
      begin = std::max(begin, input);
      length += duration(stage, program(stage)[i]);
    }
    if (count == 2) length *= times_.pair;
    line_.busy[stage] += length;
    for (size_t i = first; i < first + count; ++i) {
      finish(stage, begin, begin + length);
      if (overlapped()) pass_on(stage, program(stage)[i]);
    }
    return true;
  }

  // What a computation yields travels by itself.
  void pass_on(size_t stage, const Instruction& instruction) {
    const size_t place = place_of(stage, instruction.chunk);
    const bool forward = instruction.op == Op::kForward;
    if (!forward && instruction.op != Op::kBackward && instruction.op != Op::kInputGrad) return;
    if (forward ? place + 1 == schedule_.flow.size() : place == 0) return;
    const size_t target = forward ? place + 1 : place - 1;
    const auto receiver = static_cast<size_t>(schedule_.flow[target].stage);
    const double arrival = clock_[stage] + (receiver == stage ? 0 : times_.message);
    (forward ? inputs_ : gradients_)[unit(target, instruction)] = arrival;
    if (receiver != stage) runnable_.push_back(receiver);
  }

  void arrive(size_t stage, const Instruction& receive, double time) {
    if (is_send(receive.op)) return;
    const size_t place = place_of(stage, receive.chunk);
    (receive.op == Op::kReceiveActivation ? inputs_ : gradients_)[unit(place, receive)] = time;
  }

  // Blocking: sender and receiver stand at the same message.
  bool meet(size_t stage) {
    const Instruction& mine = current(stage);
    const auto peer = static_cast<size_t>(mine.peer);
    if (next_[peer] == program(peer).size()) return false;
    const Instruction& other = current(peer);
    if (!is_message(other.op) || static_cast<size_t>(other.peer) != stage ||
        is_send(other.op) == is_send(mine.op)) {
      return false;
    }
    const double end = std::max(clock_[stage], clock_[peer]) + times_.message;
    arrive(stage, mine, end);
    arrive(peer, other, end);
    finish(stage, clock_[stage], end);
    finish(peer, clock_[peer], end);
    runnable_.push_back(peer);
    return true;
  }

  // Batched: the whole run of messages begins, and all of it must have met its other half.
  bool exchange(size_t stage) {
    auto& posted = posted_[stage];
    const size_t first = next_[stage];
    if (posted.empty()) {
      for (size_t i = first; i < program(stage).size() && is_message(program(stage)[i].op); ++i) {
        const auto peer = static_cast<size_t>(program(stage)[i].peer);
        auto& times = half(stage, program(stage)[i], /*own=*/true);
        posted.push_back(times.size());
        times.push_back(clock_[stage]);
        runnable_.push_back(peer);
      }
    }
    double end = clock_[stage];
    for (size_t i = 0; i < posted.size(); ++i) {
      const auto& others = half(stage, program(stage)[first + i], /*own=*/false);
      if (others.size() <= posted[i]) return false;
      end = std::max(end, std::max(others[posted[i]], clock_[stage]) + times_.message);
    }
    const double begin = clock_[stage];
    for (size_t i = 0; i < posted.size(); ++i) {
      arrive(stage, current(stage), end);
      finish(stage, begin, end);
    }
    posted.clear();
    return true;
  }

  std::vector<double>& half(size_t stage, const Instruction& message, bool own) {
    const auto peer = static_cast<size_t>(message.peer);
    const bool sends = is_send(message.op);
    Channel& channel = channels_[sends ? std::pair(stage, peer) : std::pair(peer, stage)];
    return sends == own ? channel.sends : channel.receives;
  }

  const Schedule& schedule_;
  Places places_;
  const Times& times_;
  Transfer transfer_;
  Timeline line_;
  std::vector<size_t> next_;                 // instruction of each stage
  std::vector<double> clock_;                // when it can begin
  std::vector<size_t> runnable_;             // stages to look at again
  std::vector<double> inputs_, gradients_;   // by unit: when they are there
  std::vector<std::vector<size_t>> posted_;  // batched: places in their channels
  std::map<std::pair<size_t, size_t>, Channel> channels_;
};

}  // namespace

double Timeline::bubble() const {
  if (makespan <= 0 || busy.empty()) return 0;
  const double computed = std::accumulate(busy.begin(), busy.end(), 0.0);
  return 1 - computed / (makespan * static_cast<double>(busy.size()));
}

Timeline simulate(const Schedule& schedule, const Times& times, Transfer transfer) {
  return Walk(schedule, times, transfer).run();
}

}  // namespace qianli::plan
