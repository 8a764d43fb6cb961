// The state-space recurrence of Mamba-2, forward: linear attention with a decay. A task owns some
// heads of a group of a sequence and takes the chunks in order. With decays s_i summed inside a
// chunk, D_ij = exp(s_i - s_j) and the state S before the chunk:
//
//   out = exp(s) (C S) + (tril(C B^T D) dt + skip) x
//   S = exp(s_last) S + B^T (exp(s_last - s) dt x)
#include <algorithm>

#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"
#include "qianli/ops/cpu/state_space.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/state_space_forward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/state_space-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

template <class T>
class StateSpaceForwardTask {
 public:
  StateSpaceForwardTask(const StateSpaceForward& a, const StateSpaceShape& shape, int64_t sequence,
                        float* memory)
      : a_(a), s_(shape), sequence_(sequence) {
    Arena arena(memory);
    m_.take(arena, s_);
  }

  void run() {
    for (int64_t head = 0; head < s_.heads; ++head) load_state(head);
    for (int64_t chunk = 0; chunk < s_.chunks; ++chunk) {
      count_ = std::min(kChunk, s_.rows - chunk * kChunk);
      row_ = s_.start + chunk * kChunk;
      load_group<T>(a_, s_, row_, count_, {m_.b, s_.state_row}, {m_.c, s_.state_row});
      group_scores(s_, m_.b, m_.c, count_, m_.b_t, m_.scores);
      for (int64_t head = 0; head < s_.heads; ++head) run_head(head);
    }
    for (int64_t head = 0; a_.final_state && head < s_.heads; ++head) {
      store_rows(state(head), s_.state_size, s_.head_dim, a_.final_state + state_at(head),
                 s_.head_dim);
    }
  }

 private:
  Matrix state(int64_t head) const { return {m_.states + head * s_.state_floats(), s_.head_row}; }
  int64_t state_at(int64_t head) const {
    return (sequence_ * a_.heads + s_.first_head + head) * s_.state_size * s_.head_dim;
  }
  void load_state(int64_t head) {
    const Matrix to = state(head);
    if (a_.initial_state) {
      copy_rows(a_.initial_state + state_at(head), s_.head_dim, s_.state_size, s_.head_dim, to.row,
                to.at);
    } else {
      std::fill_n(to.at, s_.state_floats(), 0.0f);
    }
  }

  void run_head(int64_t head) {
    const int64_t all = s_.first_head + head;
    gates_.load(a_, all, row_, count_);
    const Matrix x{m_.x, s_.head_row}, scaled{m_.scaled, s_.head_row}, out{m_.out, s_.head_row};
    copy_rows(static_cast<const T*>(a_.x) + row_ * a_.x_stride + all * s_.head_dim, a_.x_stride,
              count_, s_.head_dim, x.row, x.at);
    multiply(Part::kAll, rows_of(m_.c, s_.state_row), state(head), Into::kSet, out, count_,
             s_.state_size, s_.head_dim);
    decay_matrix(gates_.decay, count_, m_.mixing);
    mix(
        m_.scores, m_.mixing, count_, /*strictly=*/false,
        [&](int64_t, int64_t j) QIANLI_LAMBDA { return hn::LoadU(F(), gates_.dt + j); }, m_.mixing);
    for (int64_t i = 0; i < count_; ++i) m_.mixing[i * kChunk + i] += a_.skip[all];
    multiply(Part::kLower, rows_of(m_.mixing, kChunk), x, Into::kAdd, out, count_, count_,
             s_.head_dim, gates_.decay.from_start);
    store_rows(out, count_, s_.head_dim,
               static_cast<T*>(a_.out) + (row_ * a_.heads + all) * s_.head_dim,
               a_.heads * s_.head_dim);
    scale_rows(
        x, count_, s_.head_dim,
        [&](int64_t i) QIANLI_LAMBDA { return gates_.decay.to_end[i] * gates_.dt[i]; }, scaled);
    std::fill_n(m_.whole, s_.state_size, gates_.decay.whole);
    multiply(Part::kAll, columns_of(m_.b, s_.state_row), scaled, Into::kAdd, state(head),
             s_.state_size, count_, s_.head_dim, m_.whole);
  }

  const StateSpaceForward& a_;
  const StateSpaceShape s_;
  const int64_t sequence_;
  StateSpaceForwardMemory m_;
  StateSpaceGates gates_;
  int64_t count_ = 0, row_ = 0;
};

void RunStateSpaceForward(const StateSpaceForward& a, const StateSpaceShape& shape,
                          int64_t sequence, float* memory) {
  if (a.dtype == Dtype::kFloat32) {
    return StateSpaceForwardTask<float>(a, shape, sequence, memory).run();
  }
  StateSpaceForwardTask<uint16_t>(a, shape, sequence, memory).run();
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {
namespace {
HWY_EXPORT(RunStateSpaceForward);
}

int64_t state_space_parts(const StateSpaceForward& a) {
  const int64_t threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  const int64_t wanted = threads == 1 ? 1 : divide_up(2 * threads, a.sequences * a.groups);
  return std::clamp<int64_t>(wanted, 1, a.heads / a.groups);
}

void state_space_forward(const StateSpaceForward& args, Stream) {
  if (args.sequences == 0) return;
  const int64_t parts = state_space_parts(args);
  parallel_tasks(args.sequences * args.groups * parts, [&](int64_t task) {
    const int64_t sequence = task / (args.groups * parts);
    const StateSpaceShape shape(args, sequence, task / parts % args.groups, task % parts, parts);
    float* memory = scratch(Slot::kTask, floats_of<StateSpaceForwardMemory>(shape));
    HWY_DYNAMIC_DISPATCH(RunStateSpaceForward)(args, shape, sequence, memory);
  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
