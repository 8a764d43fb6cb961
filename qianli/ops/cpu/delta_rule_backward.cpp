// Gated delta rule, backward. A task owns a key head of a sequence: it runs over the chunks once to
// have the state before each of them again (from the saved corrections c), then backward. With the
// notation of delta_rule_forward.cpp, V = beta c, S' the state behind the chunk and gradients
// written with a leading d:
//
//   dV = tril(Q K^T D)^T dout + exp(s_last - s) (K dS')
//   Z = dV - tril(beta K K^T D, -1)^T Z      by substitution from the last row
//   dv = beta Z    dbeta = rowsum(Z c)
//   M = tril(dout V^T D)    N = -tril(dv V^T D, -1)
//   dQ = M K + exp(s) (dout S^T)
//   dK = M^T Q + (N + N^T) K + exp(s_last - s) (V dS'^T) - exp(s) (dv S^T)
//   dS = exp(s_last) dS' + Q^T (exp(s) dout) - K^T (exp(s) dv)
//   dg: see ExponentGradients
#include <algorithm>

#include "qianli/ops/cpu/delta_rule.h"
#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/delta_rule_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/delta_rule-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

template <class T>
class DeltaBackward {
 public:
  DeltaBackward(const DeltaRuleBackward& b, int64_t sequence, int64_t key_head, float* memory)
      : b_(b),
        a_(b.forward),
        s_(b.forward, sequence, key_head),
        sequence_(sequence),
        key_head_(key_head) {
    Arena arena(memory);
    m_.take(arena, s_);
  }

  void run() {
    for (int64_t head = 0; head < s_.heads; ++head) load_states(head);
    for (int64_t chunk = 0; chunk < s_.chunks; ++chunk) advance_states(chunk);
    for (int64_t chunk = s_.chunks - 1; chunk >= 0; --chunk) {
      set_chunk(chunk);
      load_chunk<T>(a_, s_, key_head_, chunk, count_, m_.keys);
      std::fill_n(m_.grads, 2 * count_ * s_.key_row, 0.0f);
      for (int64_t head = 0; head < s_.heads; ++head) value_head(head);
      store_key_gradients();
    }
    for (int64_t head = 0; b_.grad_initial_state && head < s_.heads; ++head) {
      store_rows(grad_state(head), s_.key_dim, s_.value_dim, b_.grad_initial_state + state_at(head),
                 s_.value_dim);
    }
  }

 private:
  void set_chunk(int64_t chunk) {
    chunk_ = chunk;
    count_ = std::min(kChunk, s_.rows - chunk * kChunk);
    row_ = s_.start + chunk * kChunk;
  }
  int64_t state_at(int64_t head) const {
    return (sequence_ * a_.value_heads + s_.first_value_head + head) * s_.key_dim * s_.value_dim;
  }
  // Before `chunk`: [value_dim][key_row].
  Matrix state_t(int64_t head, int64_t chunk) const {
    const int64_t size = s_.value_dim * s_.key_row;
    return {m_.states_t + (head * (s_.chunks + 1) + chunk) * size, s_.key_row};
  }
  Matrix grad_state(int64_t head) const {
    return {m_.grad_states + head * s_.key_dim * s_.value_row, s_.value_row};
  }
  // Of the contiguous arrays over value heads.
  int64_t values_at(int64_t head) const {
    return (row_ * a_.value_heads + s_.first_value_head + head) * s_.value_dim;
  }
  int64_t values_stride() const { return a_.value_heads * s_.value_dim; }
  Matrix queries() const { return {m_.keys.stacked, s_.key_row}; }
  Matrix keys() const { return queries().from(count_); }

  void load_states(int64_t head) {
    const Matrix first = state_t(head, 0), last = grad_state(head);
    std::fill_n(first.at, s_.value_dim * s_.key_row, 0.0f);
    if (a_.initial_state) {
      transpose(a_.initial_state + state_at(head), s_.value_dim, s_.key_dim, s_.key_dim,
                s_.value_dim, 1.0f, first.at, first.row);
    }
    std::fill_n(last.at, s_.key_dim * s_.value_row, 0.0f);
    if (b_.grad_final_state) {
      copy_rows(b_.grad_final_state + state_at(head), s_.value_dim, s_.key_dim, s_.value_dim,
                last.row, last.at);
    }
  }

  // to = factor(i) c_i
  template <class Factor>
  void load_corrections(int64_t head, const Factor& factor, Matrix to) {
    copy_rows(a_.correction + values_at(head), values_stride(), count_, s_.value_dim, to.row,
              to.at);
    scale_rows(to, count_, s_.value_dim, factor, to);
  }

  void advance_states(int64_t chunk) {
    set_chunk(chunk);
    load_keys<T>(a_, s_, key_head_, chunk, count_, keys().at, m_.keys.factor);
    for (int64_t head = 0; head < s_.heads; ++head) {
      gates_.load(a_, s_, s_.first_value_head + head, chunk, count_);
      const Matrix written{m_.written, s_.value_row};
      load_corrections(
          head, [&](int64_t i) QIANLI_LAMBDA { return gates_.decay.to_end[i] * gates_.beta[i]; },
          written);
      const Matrix next = state_t(head, chunk + 1);
      std::copy_n(state_t(head, chunk).at, s_.value_dim * s_.key_row, next.at);
      std::fill_n(m_.whole, s_.value_dim, gates_.decay.whole);
      multiply(Part::kAll, columns_of(written.at, written.row), keys(), Into::kAdd, next,
               s_.value_dim, count_, s_.key_dim, m_.whole);
    }
  }

  void value_head(int64_t head) {
    gates_.load(a_, s_, s_.first_value_head + head, chunk_, count_);
    load_corrections(head, [&](int64_t i) QIANLI_LAMBDA { return gates_.beta[i]; },
                     {m_.written, s_.value_row});
    transpose(m_.written, s_.value_row, count_, padded_columns(count_), s_.value_dim, 1.0f,
              m_.written_t, kChunk);
    const Matrix last = grad_state(head);
    transpose(last.at, last.row, s_.key_dim, s_.key_dim, s_.value_dim, 1.0f, m_.grad_state_t,
              s_.key_row);
    copy_rows(static_cast<const T*>(b_.grad_out) + values_at(head), values_stride(), count_,
              s_.value_dim, s_.value_row, m_.incoming);
    exponents_.clear(count_);
    mixing_matrices();
    value_gradients(head);
    mixing_gradients();
    key_gradients(head);
    exponent_gradients(head);
    state_gradient(head);
  }

  void mixing_matrices() {
    decay_matrix(gates_.decay, count_, m_.decay);
    const int64_t second = count_ * kChunk;
    mix(
        m_.keys.scores, m_.decay, count_, /*strictly=*/false,
        [&](int64_t, int64_t) QIANLI_LAMBDA { return set(1.0f); }, m_.mixing);
    mix(
        m_.keys.scores + second, m_.decay, count_, /*strictly=*/true,
        [&](int64_t i, int64_t) QIANLI_LAMBDA { return set(-gates_.beta[i]); }, m_.mixing + second);
  }

  // dv and dbeta; dv stands behind dout in `incoming`.
  void value_gradients(int64_t head) {
    const Matrix grad_out{m_.incoming, s_.value_row}, z = grad_out.from(count_);
    multiply(Part::kAll, rows_of(keys().at, s_.key_row), grad_state(head), Into::kSet, z, count_,
             s_.key_dim, s_.value_dim);
    for (int64_t i = 0; i < count_; ++i) {
      const float* written = m_.written + i * s_.value_row;
      exponents_.set_to_end(i,
                            gates_.decay.to_end[i] * dot(written, z.at + i * z.row, s_.value_dim));
    }
    multiply(Part::kUpper, columns_of(m_.mixing, kChunk), grad_out, Into::kAdd, z, count_, count_,
             s_.value_dim, gates_.decay.to_end);
    substitute_backward(m_.mixing + count_ * kChunk, z, count_, s_.value_dim);
    const float* c = a_.correction + values_at(head);
    float* grad_beta = b_.grad_beta + row_ * a_.value_heads + s_.first_value_head + head;
    for (int64_t i = 0; i < count_; ++i) {
      grad_beta[i * a_.value_heads] = dot(z.at + i * z.row, c + i * values_stride(), s_.value_dim);
    }
    scale_rows(
        z, count_, s_.value_dim, [&](int64_t i) QIANLI_LAMBDA { return gates_.beta[i]; }, z);
    store_rows(z, count_, s_.value_dim, static_cast<T*>(b_.grad_v) + values_at(head),
               values_stride());
    scale_rows(grad_out, count_, s_.value_dim,
               [&](int64_t i) QIANLI_LAMBDA { return gates_.decay.from_start[i]; },
               {m_.scaled, s_.value_row});
    scale_rows(
        z, count_, s_.value_dim,
        [&](int64_t i) QIANLI_LAMBDA { return -gates_.decay.from_start[i]; },
        Matrix{m_.scaled, s_.value_row}.from(count_));
  }

  // M and N
  void mixing_gradients() {
    for (int64_t half = 0; half < 2; ++half) {
      float* grads = m_.mixing_grads + half * count_ * kChunk;
      multiply(Part::kLowerOfResult,
               rows_of(m_.incoming + half * count_ * s_.value_row, s_.value_row),
               {m_.written_t, kChunk}, Into::kSet, {grads, kChunk}, count_, s_.value_dim, count_);
      const V sign = set(half == 0 ? 1.0f : -1.0f);
      mix(
          grads, m_.decay, count_, /*strictly=*/half == 1,
          [&](int64_t, int64_t) QIANLI_LAMBDA { return sign; }, grads);
    }
  }

  // dQ and dK of one value head; first what goes by the state before the chunk.
  void key_gradients(int64_t head) {
    const Matrix grad_q{m_.head_grads, s_.key_row}, grad_k = grad_q.from(count_);
    multiply(Part::kAll, rows_of(m_.scaled, s_.value_row), state_t(head, chunk_), Into::kSet,
             grad_q, 2 * count_, s_.value_dim, s_.key_dim);
    for (int64_t i = 0; i < 2 * count_; ++i) {
      const int64_t at = i * s_.key_row;
      exponents_.add_from_start(i < count_ ? i : i - count_,
                                dot(m_.keys.stacked + at, m_.head_grads + at, s_.key_dim));
    }
    const float *m = m_.mixing_grads, *n = m + count_ * kChunk;
    multiply(Part::kLower, rows_of(m, kChunk), keys(), Into::kAdd, grad_q, count_, count_,
             s_.key_dim);
    multiply(Part::kUpper, columns_of(m, kChunk), queries(), Into::kAdd, grad_k, count_, count_,
             s_.key_dim);
    multiply(Part::kLower, rows_of(n, kChunk), keys(), Into::kAdd, grad_k, count_, count_,
             s_.key_dim);
    multiply(Part::kUpper, columns_of(n, kChunk), keys(), Into::kAdd, grad_k, count_, count_,
             s_.key_dim);
    const Matrix written{m_.written, s_.value_row};
    scale_rows(
        written, count_, s_.value_dim,
        [&](int64_t i) QIANLI_LAMBDA { return gates_.decay.to_end[i]; }, written);
    multiply(Part::kAll, rows_of(written.at, written.row), {m_.grad_state_t, s_.key_row},
             Into::kAdd, grad_k, count_, s_.value_dim, s_.key_dim);
    for (int64_t i = 0; i < 2 * count_; ++i) {
      float *total = m_.grads + i * s_.key_row, *part = m_.head_grads + i * s_.key_row;
      each_vector(s_.key_dim, [&](int64_t x, int64_t) QIANLI_LAMBDA {
        hn::StoreU(hn::Add(hn::LoadU(F(), total + x), hn::LoadU(F(), part + x)), F(), total + x);
      });
    }
  }

  void exponent_gradients(int64_t head) {
    const int64_t second = count_ * kChunk;
    exponents_.add_crossing(m_.keys.scores, m_.mixing_grads);
    exponents_.add_crossing(m_.keys.scores + second, m_.mixing_grads + second);
    const float* before = state_t(head, chunk_).at;
    double through = 0.0;
    for (int64_t x = 0; x < s_.value_dim; ++x) {
      through += dot(m_.grad_state_t + x * s_.key_row, before + x * s_.key_row, s_.key_dim);
    }
    exponents_.store(gates_.decay.whole * through,
                     b_.grad_g + row_ * a_.value_heads + s_.first_value_head + head,
                     a_.value_heads);
  }

  void state_gradient(int64_t head) {
    std::fill_n(m_.whole, s_.key_dim, gates_.decay.whole);
    multiply(Part::kAll, columns_of(m_.keys.stacked, s_.key_row), {m_.scaled, s_.value_row},
             Into::kAdd, grad_state(head), s_.key_dim, 2 * count_, s_.value_dim, m_.whole);
  }

  // Back through the normalisation: x = factor * given, factor = scale / sqrt(given^2 + eps).
  void store_key_gradients() {
    const int64_t stride = a_.key_heads * s_.key_dim;
    for (int64_t i = 0; i < 2 * count_; ++i) {
      const bool query = i < count_;
      T* to = static_cast<T*>(query ? b_.grad_q : b_.grad_k) +
              (row_ + (query ? i : i - count_)) * stride + key_head_ * s_.key_dim;
      const float* x = m_.keys.stacked + i * s_.key_row;
      const float* grad = m_.grads + i * s_.key_row;
      const double scale = query ? a_.scale : 1.0;
      const V along = set(static_cast<float>(dot(x, grad, s_.key_dim) / (scale * scale)));
      const V factor = set(m_.keys.factor[i]);
      each_vector(s_.key_dim, [&](int64_t at, int64_t n) QIANLI_LAMBDA {
        const V across = hn::NegMulAdd(hn::LoadU(F(), x + at), along, hn::LoadU(F(), grad + at));
        store(hn::Mul(across, factor), to + at, n);
      });
    }
  }

  const DeltaRuleBackward& b_;
  const DeltaRuleForward& a_;
  const DeltaRuleShape s_;
  const int64_t sequence_, key_head_;
  DeltaRuleBackwardMemory m_;
  DeltaRuleGates gates_;
  ExponentGradients exponents_;
  int64_t chunk_ = 0, count_ = 0, row_ = 0;
};

void DeltaBackwardTask(const DeltaRuleBackward& b, int64_t sequence, int64_t key_head,
                       float* memory) {
  if (b.forward.dtype == Dtype::kFloat32) {
    return DeltaBackward<float>(b, sequence, key_head, memory).run();
  }
  DeltaBackward<uint16_t>(b, sequence, key_head, memory).run();
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {
namespace {
HWY_EXPORT(DeltaBackwardTask);
}

void delta_rule_backward(const DeltaRuleBackward& args, Stream) {
  const DeltaRuleForward& f = args.forward;
  parallel_tasks(f.sequences * f.key_heads, [&](int64_t task) {
    const int64_t sequence = task / f.key_heads, key_head = task % f.key_heads;
    const DeltaRuleShape shape(f, sequence, key_head);
    float* memory = scratch(Slot::kTask, floats_of<DeltaRuleBackwardMemory>(shape));
    HWY_DYNAMIC_DISPATCH(DeltaBackwardTask)(args, sequence, key_head, memory);
  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
