// Schedules with one chunk a stage.
#include <algorithm>

#include "qianli/plan/schedules/families.h"

namespace qianli::plan {

// Huang et al., 2019, https://arxiv.org/abs/1811.06965
Program gpipe(const ScheduleOptions& options, int64_t /*stage*/) {
  Program program;
  for (int64_t m = 0; m < options.microbatches; ++m) program.push_back(compute(Op::kForward, 0, m));
  for (int64_t m = 0; m < options.microbatches; ++m)
    program.push_back(compute(Op::kBackward, 0, m));
  return program;
}

// Narayanan et al., 2021, https://arxiv.org/abs/2104.04473. Over slices: Seq1F1B, Sun et al., 2024,
// https://arxiv.org/abs/2406.03488: a microbatch's slices go forward in order and backward in
// reverse, so its first backward waits for its last slice, slices - 1 forwards more.
Program one_f_one_b(const ScheduleOptions& options, int64_t stage) {
  const int64_t slices = options.slices, units = options.microbatches * slices;
  const int64_t warmup = std::min(options.stages - stage - 1 + slices - 1, units);
  Program program;
  const auto forward = [&](int64_t k) {
    program.push_back(compute(Op::kForward, 0, k / slices, k % slices));
  };
  const auto backward = [&](int64_t k) {
    program.push_back(compute(Op::kBackward, 0, k / slices, slices - 1 - k % slices));
  };
  for (int64_t k = 0; k < warmup; ++k) forward(k);
  for (int64_t k = warmup; k < units; ++k) {
    forward(k);
    backward(k - warmup);
  }
  for (int64_t k = units - warmup; k < units; ++k) backward(k);
  return program;
}

// ZB-H1 of Qi et al., 2024, https://arxiv.org/abs/2401.10241: 1F1B in which stage r is r weight
// gradients behind. With the stages - r forwards of 1F1B that is the same peak on every stage, and
// gradients leave earlier.
Program zero_bubble(const ScheduleOptions& options, int64_t stage) {
  const int64_t count = options.microbatches;
  const int64_t warmup = std::min(options.stages - stage - 1, count);
  Program program;
  for (int64_t m = 0; m < warmup; ++m) program.push_back(compute(Op::kForward, 0, m));
  for (int64_t m = 0; m < count; ++m) {
    if (warmup + m < count) program.push_back(compute(Op::kForward, 0, warmup + m));
    program.push_back(compute(Op::kInputGrad, 0, m));
    if (m >= stage) program.push_back(compute(Op::kWeightGrad, 0, m - stage));
  }
  for (int64_t m = std::max<int64_t>(0, count - stage); m < count; ++m)
    program.push_back(compute(Op::kWeightGrad, 0, m));
  return program;
}

}  // namespace qianli::plan
