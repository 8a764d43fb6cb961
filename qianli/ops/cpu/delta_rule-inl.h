// Loading what the gated delta rule's forward and backward chunks share. Include per target.
#if defined(QIANLI_OPS_CPU_DELTA_RULE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QIANLI_OPS_CPU_DELTA_RULE_INL_H_
#undef QIANLI_OPS_CPU_DELTA_RULE_INL_H_
#else
#define QIANLI_OPS_CPU_DELTA_RULE_INL_H_
#endif

#include <cmath>

#include "qianli/ops/cpu/chunk-inl.h"
#include "qianli/ops/cpu/delta_rule.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// Rows times scale / sqrt(sum of squares + eps); `factor` keeps what they were multiplied with.
template <class T>
HWY_INLINE void load_normalised(const T* from, int64_t from_row, int64_t count, int64_t columns,
                                double scale, double eps, Matrix to, float* factor) {
  copy_rows(from, from_row, count, columns, to.row, to.at);
  for (int64_t i = 0; i < count; ++i) {
    const float* row = to.at + i * to.row;
    factor[i] = static_cast<float>(scale / std::sqrt(dot(row, row, columns) + eps));
  }
  scale_rows(
      to, count, columns, [&](int64_t r) QIANLI_LAMBDA { return factor[r]; }, to);
}

// Normalised keys alone: [count][key_row].
template <class T>
HWY_INLINE void load_keys(const DeltaRuleForward& a, const DeltaRuleShape& s, int64_t key_head,
                          int64_t chunk, int64_t count, float* to, float* factor) {
  const int64_t row = s.start + chunk * kChunk;
  const T* k = static_cast<const T*>(a.k) + row * a.k_stride + key_head * s.key_dim;
  load_normalised(k, a.k_stride, count, s.key_dim, 1.0, a.norm_eps, {to, s.key_row}, factor);
}

// Queries, keys and their products.
template <class T>
HWY_INLINE void load_chunk(const DeltaRuleForward& a, const DeltaRuleShape& s, int64_t key_head,
                           int64_t chunk, int64_t count, const DeltaRuleKeys& keys) {
  const int64_t row = s.start + chunk * kChunk;
  const T* q = static_cast<const T*>(a.q) + row * a.q_stride + key_head * s.key_dim;
  load_normalised(q, a.q_stride, count, s.key_dim, a.scale, a.norm_eps, {keys.stacked, s.key_row},
                  keys.factor);
  float* k = keys.stacked + count * s.key_row;
  load_keys<T>(a, s, key_head, chunk, count, k, keys.factor + count);
  transpose(k, s.key_row, count, padded_columns(count), s.key_dim, 1.0f, keys.keys_t, kChunk);
  for (int64_t half = 0; half < 2; ++half) {
    multiply(Part::kLowerOfResult, rows_of(keys.stacked + half * count * s.key_row, s.key_row),
             {keys.keys_t, kChunk}, Into::kSet, {keys.scores + half * count * kChunk, kChunk},
             count, s.key_dim, count);
  }
}

// g and beta of one value head in one chunk.
struct DeltaRuleGates {
  Decay decay;
  float beta[kChunk];

  HWY_INLINE void load(const DeltaRuleForward& a, const DeltaRuleShape& s, int64_t value_head,
                       int64_t chunk, int64_t count) {
    const int64_t at = (s.start + chunk * kChunk) * a.value_heads + value_head;
    decay.fill(count, [&](int64_t i) QIANLI_LAMBDA { return a.g[at + i * a.value_heads]; });
    for (int64_t i = 0; i < count; ++i) beta[i] = a.beta[at + i * a.value_heads];
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
