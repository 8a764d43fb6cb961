// What each family computes in which order. Messages come later (weave.h).
#pragma once

#include "qianli/plan/schedule.h"

namespace qianli::plan {

Program gpipe(const ScheduleOptions& options, int64_t stage);
Program one_f_one_b(const ScheduleOptions& options, int64_t stage);  // also over slices
Program zero_bubble(const ScheduleOptions& options, int64_t stage);
Program interleaved(const ScheduleOptions& options, int64_t stage);  // also nano-pipe
Program dual_pipe_v(const ScheduleOptions& options, int64_t stage);

// Of an interleaved program: marks forwards as checkpointed and recomputes them in the bubble.
void recompute_in_bubble(const ScheduleOptions& options, int64_t stage, Program& program);

// Forwards before the first backward.
int64_t interleaved_warmup(const ScheduleOptions& options, int64_t stage);

inline Instruction compute(Op op, int64_t chunk, int64_t microbatch, int64_t slice = 0) {
  return {.op = op,
          .chunk = static_cast<int32_t>(chunk),
          .microbatch = static_cast<int32_t>(microbatch),
          .slice = static_cast<int32_t>(slice)};
}

}  // namespace qianli::plan
