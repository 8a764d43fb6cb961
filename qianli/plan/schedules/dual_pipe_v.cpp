// DualPipe-V, the folded half of DeepSeek's DualPipe (https://github.com/deepseek-ai/DualPipe), as
// MindSpeed orders it.
#include <deque>

#include "qianli/plan/schedules/families.h"

namespace qianli::plan {
namespace {

class Stage {
 public:
  explicit Stage(int64_t microbatches) : microbatches_(microbatches) {}

  bool forward(int chunk, bool paired = false) {
    if (forwards_[chunk] == microbatches_) return false;
    program_.push_back(compute(Op::kForward, chunk, forwards_[chunk]++));
    program_.back().paired = paired;
    return true;
  }
  bool backwards_left(int chunk) const { return backwards_[chunk] < microbatches_; }
  void backward(int chunk) {
    program_.push_back(compute(Op::kBackward, chunk, backwards_[chunk]++));
  }
  void input_grad(int chunk) {
    program_.push_back(compute(Op::kInputGrad, chunk, backwards_[chunk]++));
    waiting_.push_back(program_.back());
  }
  void weight_grad() {
    const Instruction& oldest = waiting_.front();
    program_.push_back(compute(Op::kWeightGrad, oldest.chunk, oldest.microbatch));
    waiting_.pop_front();
  }
  Program take() { return std::move(program_); }

 private:
  int64_t microbatches_;
  int64_t forwards_[2] = {0, 0}, backwards_[2] = {0, 0};
  std::deque<Instruction> waiting_;  // for their weights' gradient
  Program program_;
};

}  // namespace

Program dual_pipe_v(const ScheduleOptions& options, int64_t stage) {
  const int64_t stages = options.stages, behind = stages - stage - 1;
  Stage work(options.microbatches);
  for (int64_t i = 0; i < 2 * behind; ++i) work.forward(0);
  for (int64_t i = 0; i <= stage; ++i) {
    work.forward(0);
    work.forward(1);
  }
  for (int64_t i = 0; i < behind; ++i) {
    work.input_grad(1);
    work.weight_grad();
    work.forward(1);
  }
  int turn = 1;  // the chunk that goes back
  const int64_t pairs =
      2 * options.microbatches - 4 * stages + 2 * stage + 2 + 2 * behind + stage + 1;
  for (int64_t i = 0; i < pairs; ++i) {
    // Apart, the last stage's first forward need not wait for a gradient.
    const bool apart = i == 0 && behind == 0;
    work.forward(1 - turn, options.merge_pairs && !apart);
    work.backward(turn);
    turn = 1 - turn;
  }
  for (int64_t i = 0; i < stages; ++i) {
    if (!work.backwards_left(turn)) turn = 1 - turn;
    if (options.detach_weight_grads) {
      work.input_grad(turn);
      if (i >= stage) work.weight_grad();
    } else {
      work.backward(turn);
    }
    turn = 1 - turn;
  }
  for (int64_t i = 0; options.detach_weight_grads && i < stage; ++i) work.weight_grad();
  return work.take();
}

}  // namespace qianli::plan
