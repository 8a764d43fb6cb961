// Recompute that costs no time (MindSpeed's ripipe): forwards of chunk 0 that would lie beyond what
// the schedule without recompute holds keep only their input, and are recomputed where the stage
// would wait for gradients.
#include <algorithm>
#include <deque>

#include "qianli/plan/schedules/families.h"

namespace qianli::plan {
namespace {

// Which forwards of a stage keep their input alone. A group is `stages` microbatches in every
// chunk.
class Choice {
 public:
  Choice(const ScheduleOptions& options, int64_t stage) : stages_(options.stages), stage_(stage) {
    group_ = options.chunks * stages_;
    const int64_t groups = options.microbatches / stages_;
    if (groups < 2) return;
    beyond_ = std::max<int64_t>(0, interleaved_warmup(options, stage) + 1 - group_);
    if (beyond_ == 0 || groups < 3) return;
    steady_groups_ = groups - 3;
    tail_ = 1;
    if (steady_groups_ > 0) return;
    tail_ = 2 + 2 * stage;
    if (tail_ >= stages_ - 1 - 2 * stage) {
      tail_ = 0;
      steady_groups_ = 1;
    }
  }

  // How many are recomputed while gradients are on the way at the end.
  int64_t beyond() const { return beyond_; }

  // The k-th forward of the stage.
  bool checkpointed(int64_t k) const {
    if (k < group_ || beyond_ == 0) return false;
    if (k < group_ + beyond_) return true;
    const int64_t group = k / group_, within = k % group_;
    if (group < 2 || within >= stages_) return false;  // chunk 0 comes first in a group
    if (group < 2 + steady_groups_) return within >= 1 + 2 * stage_;
    return within >= stages_ - tail_;
  }

 private:
  int64_t stages_, stage_, group_ = 0, beyond_ = 0, steady_groups_ = 0, tail_ = 0;
};

}  // namespace

void recompute_in_bubble(const ScheduleOptions& options, int64_t stage, Program& program) {
  const Choice choice(options, stage);
  Program result;
  std::deque<Instruction> waiting;  // checkpointed, not yet recomputed: all of one chunk
  const auto recompute_oldest = [&] {
    if (waiting.empty()) return;
    result.push_back(waiting.front());
    waiting.pop_front();
  };
  int64_t forwards = 0, in_bubble = 0;
  const auto last_forward =
      static_cast<int64_t>(std::ranges::count(program, Op::kForward, &Instruction::op));
  for (Instruction instruction : program) {
    if (instruction.op == Op::kForward) {
      instruction.checkpoint = choice.checkpointed(forwards++);
      if (instruction.checkpoint) {
        waiting.push_back(compute(Op::kRecompute, instruction.chunk, instruction.microbatch));
      }
      result.push_back(instruction);
      continue;
    }
    // Behind the last forward, stages wait longer with every step.
    const bool cool_down = result.back().op != Op::kForward && forwards == last_forward;
    if (cool_down && in_bubble < choice.beyond()) {
      recompute_oldest();
      ++in_bubble;
    }
    if (!waiting.empty() && waiting.front().chunk == instruction.chunk &&
        waiting.front().microbatch == instruction.microbatch) {
      recompute_oldest();
    }
    result.push_back(instruction);
  }
  program = std::move(result);
}

}  // namespace qianli::plan
