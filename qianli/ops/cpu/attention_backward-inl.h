// One tile of the attention backward pass: a block of queries against a block of keys.
// Include per target.
#if defined(QIANLI_OPS_CPU_ATTENTION_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QIANLI_OPS_CPU_ATTENTION_BACKWARD_INL_H_
#undef QIANLI_OPS_CPU_ATTENTION_BACKWARD_INL_H_
#else
#define QIANLI_OPS_CPU_ATTENTION_BACKWARD_INL_H_
#endif

#include <cmath>
#include <limits>

#include "qianli/ops/cpu/attention.h"
#include "qianli/ops/cpu/attention_dropout-inl.h"
#include "qianli/ops/cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

template <class T>
HWY_INLINE float row_dot(const T* a, const T* b, int64_t size) {
  V sum = zero();
  each_vector(size, [&](int64_t j, int64_t n)
                        QIANLI_LAMBDA { sum = hn::MulAdd(load(a + j, n), load(b + j, n), sum); });
  return sum_of(sum);
}

// Holds float32 copies of the loaded rows, K^T and V^T of the loaded keys, P and dS. The working
// memory is the caller's (backward_tile_floats).
template <class T>
class BackwardTiles {
 public:
  BackwardTiles(const AttentionBackward& a, const ChosenMask& mask, int64_t sequence, float* memory)
      : a_(a),
        f_(a.forward),
        s_(sequence_of(a.forward, sequence)),
        mask_(mask.row(s_.q_start)),
        mask_words_(mask.words),
        d_(padded(a.forward.head_dim)),
        dv_(padded(a.forward.value_dim)),
        vectors_(divide_up(a.forward.head_dim, lanes())),
        value_vectors_(divide_up(a.forward.value_dim, lanes())) {
    const auto take = [&](int64_t floats) {
      float* part = memory;
      memory += floats;
      return part;
    };
    for (float** part : {&k_, &k_t_, &q_}) *part = take(kTileKeys * d_);
    for (float** part : {&v_t_, &grad_out_}) *part = take(kTileKeys * dv_);
    for (float** part : {&p_, &ds_, &cap_slope_}) *part = take(kTileQueries * kTileKeys);
    lse_ = take(kTileQueries);
    delta_ = take(kTileQueries);
  }

  const Sequence& sequence() const { return s_; }
  int64_t row_floats() const { return d_; }
  int64_t value_row_floats() const { return dv_; }

  // Whether some query of the block at `query` may see some key of the block at `key`.
  bool meet(int64_t query, int64_t key) const {
    return any_chosen(mask_, mask_words_, query, std::min(kTileQueries, s_.q_len - query), key);
  }

  void load_keys(int64_t kv_head, int64_t key) {
    key_ = key;
    keys_ = std::min(kTileKeys, s_.k_len - key);
    const int64_t row = s_.k_start + key;
    const int64_t all = divide_up(keys_, lanes()) * lanes();
    const T* k = static_cast<const T*>(f_.k) + row * f_.k_stride + kv_head * f_.k_head_stride;
    const T* v = static_cast<const T*>(f_.v) + row * f_.v_stride + kv_head * f_.v_head_stride;
    copy_rows(k, f_.k_stride, keys_, f_.head_dim, d_, k_);
    transpose(k, f_.k_stride, keys_, all, f_.head_dim, 1.0f, k_t_, kTileKeys);
    transpose(v, f_.v_stride, keys_, all, f_.value_dim, 1.0f, v_t_, kTileKeys);
  }

  void load_queries(int64_t head, int64_t query) {
    head_ = head;
    query_ = query;
    queries_ = std::min(kTileQueries, s_.q_len - query);
    slope_ = f_.slopes ? f_.slopes[head] : 0.0f;
    const int64_t row = s_.q_start + query, out_row = f_.query_heads * f_.value_dim;
    const T* q = static_cast<const T*>(f_.q) + row * f_.q_stride + head * f_.q_head_stride;
    const T* out = static_cast<const T*>(f_.out) + row * out_row + head * f_.value_dim;
    const T* grad = static_cast<const T*>(a_.grad_out) + row * out_row + head * f_.value_dim;
    const float* lse = f_.lse + head * f_.q_starts[f_.sequences] + row;
    copy_rows(q, f_.q_stride, queries_, f_.head_dim, d_, q_);
    copy_rows(grad, out_row, queries_, f_.value_dim, dv_, grad_out_);
    for (int64_t i = 0; i < queries_; ++i) {
      delta_[i] = row_dot(out + i * out_row, grad + i * out_row, f_.value_dim);
      // A row that sees no key has -infinity, which would make NaN of its hidden scores.
      lse_[i] = std::isinf(lse[i]) ? 0.0f : lse[i] * static_cast<float>(kLog2E);
    }
  }

  // P and dS of the loaded queries and keys; with dropout, P is what of it has an effect.
  void probabilities() {
    const auto span = [&](int64_t m, int64_t count) QIANLI_LAMBDA {
      const int64_t vectors = divide_up(keys_, lanes());
      const int64_t from = s_.first_key(query_ + m) - key_;
      const int64_t to = s_.end_key(query_ + m + count - 1) - key_;
      const int64_t v_begin = std::clamp<int64_t>(from / lanes(), 0, vectors);
      return Span{0, f_.head_dim, v_begin,
                  std::clamp<int64_t>(divide_up(to, lanes()), v_begin, vectors)};
    };
    product(Product{.a = q_,
                    .a_row = d_,
                    .a_column = 1,
                    .b = k_t_,
                    .b_row = kTileKeys,
                    .c = p_,
                    .c_row = kTileKeys,
                    .accumulate = false,
                    .scale = nullptr},
            queries_, span);
    product(Product{.a = grad_out_,
                    .a_row = dv_,
                    .a_column = 1,
                    .b = v_t_,
                    .b_row = kTileKeys,
                    .c = ds_,
                    .c_row = kTileKeys,
                    .accumulate = false,
                    .scale = nullptr},
            queries_, [&](int64_t m, int64_t count) QIANLI_LAMBDA {
              Span values = span(m, count);
              values.k_end = f_.value_dim;
              return values;
            });
    const bool drops = f_.dropout.threshold > 0;
    if (drops) find_kept(f_, {s_, query_, queries_, head_, 1, key_, keys_}, kept_);
    for (int64_t i = 0; i < queries_; ++i) {
      if (drops) drop_row(i, ds_);
      softmax_row(i);
      if (drops) drop_row(i, p_);
    }
  }

  // dK += dS^T Q and dV += P^T dO; rows of the loaded keys.
  void add_key_gradients(float* grad_k, float* grad_v) {
    const auto span = [&](int64_t m, int64_t count) QIANLI_LAMBDA {
      const int64_t from = std::clamp<int64_t>(s_.first_query(key_ + m) - query_, 0, queries_);
      const int64_t to =
          std::clamp<int64_t>(s_.end_query(key_ + m + count - 1) - query_, from, queries_);
      return Span{from, to, 0, vectors_};
    };
    product(Product{.a = p_,
                    .a_row = 1,
                    .a_column = kTileKeys,
                    .b = grad_out_,
                    .b_row = dv_,
                    .c = grad_v,
                    .c_row = dv_,
                    .accumulate = true,
                    .scale = nullptr},
            keys_, [&](int64_t m, int64_t count) QIANLI_LAMBDA {
              Span values = span(m, count);
              values.v_end = value_vectors_;
              return values;
            });
    product(Product{.a = ds_,
                    .a_row = 1,
                    .a_column = kTileKeys,
                    .b = q_,
                    .b_row = d_,
                    .c = grad_k,
                    .c_row = d_,
                    .accumulate = true,
                    .scale = nullptr},
            keys_, span);
  }

  // dQ += dS K; rows of the loaded queries.
  void add_query_gradient(float* grad_q) {
    product(Product{.a = ds_,
                    .a_row = kTileKeys,
                    .a_column = 1,
                    .b = k_,
                    .b_row = d_,
                    .c = grad_q,
                    .c_row = d_,
                    .accumulate = true,
                    .scale = nullptr},
            queries_, [&](int64_t m, int64_t count) QIANLI_LAMBDA {
              const int64_t from = std::clamp<int64_t>(s_.first_key(query_ + m) - key_, 0, keys_);
              const int64_t to =
                  std::clamp<int64_t>(s_.end_key(query_ + m + count - 1) - key_, from, keys_);
              return Span{from, to, 0, vectors_};
            });
  }

  // The blocks of queries that see a block of keys, and the reverse.
  int64_t first_query(int64_t key) const {
    return std::clamp<int64_t>(s_.first_query(key), 0, s_.q_len) / kTileQueries * kTileQueries;
  }
  int64_t end_query(int64_t key) const {
    return std::clamp<int64_t>(s_.end_query(std::min(key + kTileKeys, s_.k_len) - 1), 0, s_.q_len);
  }
  int64_t first_key(int64_t query) const { return s_.first_key(query) / kTileKeys * kTileKeys; }
  int64_t end_key(int64_t query) const {
    return s_.end_key(std::min(query + kTileQueries, s_.q_len) - 1);
  }

  // `from`: rows of `from_row` floats, `dim` of which count; `to`: heads of `dim` elements.
  static void store_rows(const float* from, int64_t from_row, int64_t rows, int64_t dim, void* to,
                         int64_t to_row, int64_t head, int64_t first_row) {
    T* at = static_cast<T*>(to) + first_row * to_row + head * dim;
    for (int64_t r = 0; r < rows; ++r) {
      each_vector(dim, [&](int64_t j, int64_t n) QIANLI_LAMBDA {
        store(load(from + r * from_row + j, n), at + r * to_row + j, n);
      });
    }
  }
  void store_grad_q(const float* from, int64_t rows, int64_t head, int64_t first) const {
    store_rows(from, d_, rows, f_.head_dim, a_.grad_q, a_.grad_q_stride, head, s_.q_start + first);
  }
  void store_grad_k(const float* from, int64_t rows, int64_t head, int64_t first) const {
    store_rows(from, d_, rows, f_.head_dim, a_.grad_k, a_.grad_k_stride, head, s_.k_start + first);
  }
  void store_grad_v(const float* from, int64_t rows, int64_t head, int64_t first) const {
    store_rows(from, dv_, rows, f_.value_dim, a_.grad_v, a_.grad_v_stride, head,
               s_.k_start + first);
  }

 private:
  // The scores of a row to the base 2, and the slope of the cap at each, in place of Q K^T.
  HWY_INLINE void adjust_row(int64_t i, int64_t begin, int64_t end) {
    float *p_row = p_ + i * kTileKeys, *slope_row = cap_slope_ + i * kTileKeys;
    const bool capped = f_.softcap > 0.0;
    const V factor = set(static_cast<float>(f_.scale * (capped ? 1.0 / f_.softcap : kLog2E)));
    const V cap = set(static_cast<float>(f_.softcap * kLog2E));
    const V slope = set(slope_ * static_cast<float>(kLog2E));
    const float position = static_cast<float>(query_ + i + s_.offset);
    for (int64_t j = begin / lanes() * lanes(); j < end; j += lanes()) {
      V score = hn::Mul(load(p_row + j), factor);
      if (capped) {
        V t, t_slope;
        tanh_and_slope(score, t, t_slope);
        score = hn::Mul(t, cap);
        store(t_slope, slope_row + j);
      }
      const V key = hn::Iota(F(), static_cast<float>(key_ + j));
      score = hn::MulAdd(slope, hn::Sub(key, set(position)), score);
      store(score, p_row + j);
    }
    if (!mask_) return;
    uint64_t hidden = ~mask_[(query_ + i) * mask_words_ + key_ / kTileKeys];
    for (; hidden != 0; hidden &= hidden - 1) {
      p_row[__builtin_ctzll(hidden)] = -std::numeric_limits<float>::infinity();
    }
  }

  // Of what there is for each key of a row.
  HWY_INLINE void drop_row(int64_t i, float* rows) {
    const V scale = set(static_cast<float>(f_.dropout.scale));
    for (int64_t j = 0; j < keys_; j += lanes()) {
      float* at = rows + i * kTileKeys + j;
      store(kept_values(hn::Mul(load(at), scale), kept_.of(i), j), at);
    }
  }

  HWY_INLINE void softmax_row(int64_t i) {
    const int64_t begin = std::clamp<int64_t>(s_.first_key(query_ + i) - key_, 0, keys_);
    const int64_t end = std::clamp<int64_t>(s_.end_key(query_ + i) - key_, begin, keys_);
    const bool capped = f_.softcap > 0.0, adjusted = capped || f_.slopes || mask_;
    if (adjusted) adjust_row(i, begin, end);
    const V factor = set(adjusted ? 1.0f : static_cast<float>(f_.scale * kLog2E));
    const V scale = set(static_cast<float>(f_.scale));
    const V lse = set(lse_[i]), delta = set(delta_[i]);
    float *p_row = p_ + i * kTileKeys, *ds_row = ds_ + i * kTileKeys;
    for (int64_t j = 0; j < keys_; j += lanes()) {
      if (j >= end || j + lanes() <= begin) {
        store(zero(), p_row + j);
        store(zero(), ds_row + j);
        continue;
      }
      V p = exp2_bounded(hn::MulSub(load(p_row + j), factor, lse));
      V ds = hn::Mul(hn::Mul(p, scale), hn::Sub(load(ds_row + j), delta));
      if (capped) ds = hn::Mul(ds, load(cap_slope_ + i * kTileKeys + j));
      if (j < begin || j + lanes() > end) {
        const auto before = hn::FirstN(F(), static_cast<size_t>(std::max<int64_t>(begin - j, 0)));
        const auto seen =
            hn::AndNot(before, hn::FirstN(F(), static_cast<size_t>(std::min(end - j, lanes()))));
        p = hn::IfThenElseZero(seen, p);
        ds = hn::IfThenElseZero(seen, ds);
      }
      store(p, p_row + j);
      store(ds, ds_row + j);
    }
  }

  const AttentionBackward& a_;
  const AttentionForward& f_;
  Sequence s_;
  const uint64_t* mask_;  // rows of this sequence's queries, or null
  int64_t mask_words_, d_, dv_, vectors_, value_vectors_;
  float *k_, *k_t_, *q_, *v_t_, *grad_out_, *p_, *ds_, *cap_slope_, *lse_, *delta_;
  float slope_ = 0.0f;
  int64_t key_ = 0, keys_ = 0, head_ = 0, query_ = 0, queries_ = 0;
  KeptKeys kept_;
};

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
