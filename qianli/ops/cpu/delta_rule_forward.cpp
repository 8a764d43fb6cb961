// Gated delta rule, forward. A task owns a key head of a sequence and takes its chunks in order.
// With decays s_i summed inside a chunk, D_ij = exp(s_i - s_j) and the state S before the chunk:
//
//   c = v - exp(s) (K S) - tril(K K^T D, -1) beta c      by forward substitution
//   out = exp(s) (Q S) + tril(Q K^T D) beta c
//   S = exp(s_last) S + K^T (exp(s_last - s) beta c)
#include <algorithm>

#include "qianli/ops/cpu/delta_rule.h"
#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/delta_rule_forward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/delta_rule-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

template <class T>
class DeltaForward {
 public:
  DeltaForward(const DeltaRuleForward& a, int64_t sequence, int64_t key_head, float* memory)
      : a_(a), s_(a, sequence, key_head), sequence_(sequence), key_head_(key_head) {
    Arena arena(memory);
    m_.take(arena, s_);
  }

  void run() {
    for (int64_t head = 0; head < s_.heads; ++head) load_state(head);
    for (int64_t chunk = 0; chunk < s_.chunks; ++chunk) {
      count_ = std::min(kChunk, s_.rows - chunk * kChunk);
      load_chunk<T>(a_, s_, key_head_, chunk, count_, m_.keys);
      for (int64_t head = 0; head < s_.heads; ++head) value_head(head, chunk);
    }
    for (int64_t head = 0; head < s_.heads; ++head) store_state(head);
  }

 private:
  Matrix state(int64_t head) const {
    return {m_.states + head * s_.key_dim * s_.value_row, s_.value_row};
  }
  int64_t state_at(int64_t head) const {
    return (sequence_ * a_.value_heads + s_.first_value_head + head) * s_.key_dim * s_.value_dim;
  }
  void load_state(int64_t head) {
    const Matrix to = state(head);
    if (a_.initial_state) {
      copy_rows(a_.initial_state + state_at(head), s_.value_dim, s_.key_dim, s_.value_dim, to.row,
                to.at);
    } else {
      std::fill_n(to.at, s_.key_dim * s_.value_row, 0.0f);
    }
  }
  void store_state(int64_t head) {
    if (!a_.final_state) return;
    store_rows(state(head), s_.key_dim, s_.value_dim, a_.final_state + state_at(head),
               s_.value_dim);
  }

  void value_head(int64_t head, int64_t chunk) {
    DeltaRuleGates gates;
    gates.load(a_, s_, s_.first_value_head + head, chunk, count_);
    const Matrix from_queries{m_.read, s_.value_row}, from_keys = from_queries.from(count_);
    multiply(Part::kAll, rows_of(m_.keys.stacked, s_.key_row), state(head), Into::kSet,
             from_queries, 2 * count_, s_.key_dim, s_.value_dim);
    mixing_matrices(gates);
    const int64_t at = values_at(head, chunk);
    corrections(gates,
                static_cast<const T*>(a_.v) + (s_.start + chunk * kChunk) * a_.v_stride +
                    (s_.first_value_head + head) * s_.value_dim,
                from_keys);
    multiply(Part::kLower, rows_of(m_.mixing, kChunk), from_keys, Into::kAdd, from_queries, count_,
             count_, s_.value_dim, gates.decay.from_start);
    const int64_t stride = a_.value_heads * s_.value_dim;
    store_rows(from_queries, count_, s_.value_dim, static_cast<T*>(a_.out) + at, stride);
    if (a_.correction) {
      store_rows(from_keys, count_, s_.value_dim, a_.correction + at, stride);
    }
    update_state(gates, head, from_keys);
  }

  int64_t values_at(int64_t head, int64_t chunk) const {
    const int64_t row = s_.start + chunk * kChunk;
    return (row * a_.value_heads + s_.first_value_head + head) * s_.value_dim;
  }

  // tril(Q K^T D) beta and -tril(K K^T D, -1) beta
  void mixing_matrices(const DeltaRuleGates& gates) {
    decay_matrix(gates.decay, count_, m_.decay);
    const int64_t second = count_ * kChunk;
    mix(
        m_.keys.scores, m_.decay, count_, /*strictly=*/false,
        [&](int64_t, int64_t j) QIANLI_LAMBDA { return hn::LoadU(F(), gates.beta + j); },
        m_.mixing);
    mix(
        m_.keys.scores + second, m_.decay, count_, /*strictly=*/true,
        [&](int64_t, int64_t j) QIANLI_LAMBDA { return hn::Neg(hn::LoadU(F(), gates.beta + j)); },
        m_.mixing + second);
  }

  // In place of K S.
  void corrections(const DeltaRuleGates& gates, const T* v, Matrix c) {
    for (int64_t i = 0; i < count_; ++i) {
      float* row = c.at + i * c.row;
      const V decay = set(gates.decay.from_start[i]);
      each_vector(s_.value_dim, [&](int64_t x, int64_t n) QIANLI_LAMBDA {
        const V read = hn::LoadU(F(), row + x);
        hn::StoreU(hn::NegMulAdd(decay, read, load(v + i * a_.v_stride + x, n)), F(), row + x);
      });
    }
    substitute_forward(m_.mixing + count_ * kChunk, c, count_, s_.value_dim);
  }

  void update_state(const DeltaRuleGates& gates, int64_t head, Matrix c) {
    const Matrix keys{m_.keys.stacked + count_ * s_.key_row, s_.key_row};
    const Matrix scaled{m_.scaled_keys, s_.key_row};
    scale_rows(
        keys, count_, s_.key_dim,
        [&](int64_t i) QIANLI_LAMBDA { return gates.decay.to_end[i] * gates.beta[i]; }, scaled);
    std::fill_n(m_.whole, s_.key_dim, gates.decay.whole);
    multiply(Part::kAll, columns_of(scaled.at, scaled.row), c, Into::kAdd, state(head), s_.key_dim,
             count_, s_.value_dim, m_.whole);
  }

  const DeltaRuleForward& a_;
  const DeltaRuleShape s_;
  const int64_t sequence_, key_head_;
  DeltaRuleForwardMemory m_;
  int64_t count_ = 0;  // rows of the chunk
};

void DeltaForwardTask(const DeltaRuleForward& a, int64_t sequence, int64_t key_head,
                      float* memory) {
  if (a.dtype == Dtype::kFloat32) return DeltaForward<float>(a, sequence, key_head, memory).run();
  DeltaForward<uint16_t>(a, sequence, key_head, memory).run();
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {
namespace {
HWY_EXPORT(DeltaForwardTask);
}

void delta_rule_forward(const DeltaRuleForward& args, Stream) {
  parallel_tasks(args.sequences * args.key_heads, [&](int64_t task) {
    const int64_t sequence = task / args.key_heads, key_head = task % args.key_heads;
    const DeltaRuleShape shape(args, sequence, key_head);
    float* memory = scratch(Slot::kTask, floats_of<DeltaRuleForwardMemory>(shape));
    HWY_DYNAMIC_DISPATCH(DeltaForwardTask)(args, sequence, key_head, memory);
  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
