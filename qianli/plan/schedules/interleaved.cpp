// Several chunks a stage, in a ring: Narayanan et al., 2021, https://arxiv.org/abs/2104.04473, in
// the order of Megatron-core's forward_backward_pipelining_with_interleaving.
#include <algorithm>

#include "qianli/plan/schedules/families.h"

namespace qianli::plan {
namespace {

struct Unit {
  int64_t chunk, microbatch;
};

int64_t group_size(const ScheduleOptions& options) {
  return options.group_size == 0 ? options.stages : options.group_size;
}

// Groups of microbatches pass through chunk 0, then chunk 1, …
std::vector<Unit> forward_order(const ScheduleOptions& options) {
  std::vector<Unit> order;
  const int64_t group = group_size(options);
  for (int64_t first = 0; first < options.microbatches; first += group) {
    const int64_t end = std::min(first + group, options.microbatches);
    for (int64_t chunk = 0; chunk < options.chunks; ++chunk) {
      for (int64_t m = first; m < end; ++m) order.push_back({chunk, m});
    }
  }
  return order;
}

}  // namespace

int64_t interleaved_warmup(const ScheduleOptions& options, int64_t stage) {
  return std::min(2 * (options.stages - stage - 1) + (options.chunks - 1) * group_size(options),
                  options.microbatches * options.chunks);
}

// Nano-pipe (MindSpeed): in the steps in which the first stage still warms up, a stage computes
// input gradients alone, so that gradients reach the first stage earlier. The weights' follow when
// all else is done.
Program interleaved(const ScheduleOptions& options, int64_t stage) {
  const std::vector<Unit> order = forward_order(options);
  const auto total = static_cast<int64_t>(order.size());
  const int64_t warmup = interleaved_warmup(options, stage);
  const int64_t put_off =
      options.kind == ScheduleKind::kNanoPipe ? interleaved_warmup(options, 0) - warmup : 0;
  const auto forward = [&](int64_t k) {
    const Unit& unit = order[static_cast<size_t>(k)];
    return compute(Op::kForward, unit.chunk, unit.microbatch);
  };
  const auto backward = [&](Op op, int64_t k) {
    const Unit& unit = order[static_cast<size_t>(k)];
    return compute(op, options.chunks - 1 - unit.chunk, unit.microbatch);
  };
  Program program;
  for (int64_t k = 0; k < warmup; ++k) program.push_back(forward(k));
  for (int64_t k = 0; k < total; ++k) {
    if (warmup + k < total) program.push_back(forward(warmup + k));
    program.push_back(backward(k < put_off ? Op::kInputGrad : Op::kBackward, k));
  }
  for (int64_t k = 0; k < put_off; ++k) program.push_back(backward(Op::kWeightGrad, k));
  return program;
}

}  // namespace qianli::plan
