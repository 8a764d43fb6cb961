// Loading what the state-space forward and backward chunks share. Include per target.
#if defined(QIANLI_OPS_CPU_STATE_SPACE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QIANLI_OPS_CPU_STATE_SPACE_INL_H_
#undef QIANLI_OPS_CPU_STATE_SPACE_INL_H_
#else
#define QIANLI_OPS_CPU_STATE_SPACE_INL_H_
#endif

#include "qianli/ops/cpu/chunk-inl.h"
#include "qianli/ops/cpu/state_space.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// b and c of the task's group, `count` rows from `row`.
template <class T>
HWY_INLINE void load_group(const StateSpaceForward& a, const StateSpaceShape& s, int64_t row,
                           int64_t count, Matrix b, Matrix c) {
  const int64_t column = s.group * s.state_size;
  copy_rows(static_cast<const T*>(a.b) + row * a.b_stride + column, a.b_stride, count, s.state_size,
            b.row, b.at);
  copy_rows(static_cast<const T*>(a.c) + row * a.c_stride + column, a.c_stride, count, s.state_size,
            c.row, c.at);
}

// The lower part of c b^T.
HWY_INLINE void group_scores(const StateSpaceShape& s, const float* b, const float* c,
                             int64_t count, float* b_t, float* scores) {
  transpose(b, s.state_row, count, padded_columns(count), s.state_size, 1.0f, b_t, kChunk);
  multiply(Part::kLowerOfResult, rows_of(c, s.state_row), {b_t, kChunk}, Into::kSet,
           {scores, kChunk}, count, s.state_size, count);
}

// dt of one head in one chunk, and the decays that follow from it.
struct StateSpaceGates {
  Decay decay;
  float dt[kChunk];

  HWY_INLINE void load(const StateSpaceForward& a, int64_t head, int64_t row, int64_t count) {
    const float* from = a.dt + row * a.heads + head;
    for (int64_t i = 0; i < count; ++i) dt[i] = from[i * a.heads];
    const double rate = a.a[head];
    decay.fill(count, [&](int64_t i) QIANLI_LAMBDA { return rate * dt[i]; });
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
