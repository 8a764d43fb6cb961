// One tile of the attention backward pass: a block of queries against a block of keys.
// Include per target.
#if defined(QIANLI_OPS_CPU_ATTENTION_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QIANLI_OPS_CPU_ATTENTION_BACKWARD_INL_H_
#undef QIANLI_OPS_CPU_ATTENTION_BACKWARD_INL_H_
#else
#define QIANLI_OPS_CPU_ATTENTION_BACKWARD_INL_H_
#endif

#include "qianli/ops/cpu/attention.h"
#include "qianli/ops/cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// Holds float32 copies of the loaded rows, K^T and V^T of the loaded keys, P and dS. The working
// memory is the caller's (backward_tile_floats).
template <class T>
class BackwardTiles {
 public:
  BackwardTiles(const AttentionBackward& a, int64_t sequence, float* memory)
      : a_(a),
        f_(a.forward),
        s_(sequence_of(a.forward, sequence)),
        d_(padded_head_dim(a.forward.head_dim)),
        vectors_(divide_up(a.forward.head_dim, lanes())) {
    for (float** part : {&k_, &k_t_, &v_t_, &q_, &grad_out_}) {
      *part = memory;
      memory += kTileKeys * d_;
    }
    p_ = memory;
    ds_ = p_ + kTileQueries * kTileKeys;
    lse_ = ds_ + kTileQueries * kTileKeys;
    delta_ = lse_ + kTileQueries;
  }

  const Sequence& sequence() const { return s_; }
  int64_t row_floats() const { return d_; }

  void load_keys(int64_t kv_head, int64_t key) {
    key_ = key;
    keys_ = std::min(kTileKeys, s_.k_len - key);
    const int64_t row = s_.k_start + key, column = kv_head * f_.head_dim;
    const int64_t padded = divide_up(keys_, lanes()) * lanes();
    const T* k = static_cast<const T*>(f_.k) + row * f_.k_stride + column;
    const T* v = static_cast<const T*>(f_.v) + row * f_.v_stride + column;
    copy_rows(k, f_.k_stride, keys_, f_.head_dim, d_, k_);
    transpose(k, f_.k_stride, keys_, padded, f_.head_dim, 1.0f, k_t_, kTileKeys);
    transpose(v, f_.v_stride, keys_, padded, f_.head_dim, 1.0f, v_t_, kTileKeys);
  }

  void load_queries(int64_t head, int64_t query) {
    query_ = query;
    queries_ = std::min(kTileQueries, s_.q_len - query);
    const int64_t row = s_.q_start + query, out_row = f_.query_heads * f_.head_dim;
    const T* q = static_cast<const T*>(f_.q) + row * f_.q_stride + head * f_.head_dim;
    const T* out = static_cast<const T*>(f_.out) + row * out_row + head * f_.head_dim;
    const T* grad = static_cast<const T*>(a_.grad_out) + row * out_row + head * f_.head_dim;
    const float* lse = f_.lse + head * f_.q_starts[f_.sequences] + row;
    copy_rows(q, f_.q_stride, queries_, f_.head_dim, d_, q_);
    copy_rows(grad, out_row, queries_, f_.head_dim, d_, grad_out_);
    for (int64_t i = 0; i < queries_; ++i) {
      V sum = zero();
      each_vector(f_.head_dim, [&](int64_t j, int64_t n) QIANLI_LAMBDA {
        sum = hn::MulAdd(load(out + i * out_row + j, n), load(grad + i * out_row + j, n), sum);
      });
      delta_[i] = sum_of(sum);
      lse_[i] = lse[i] * static_cast<float>(kLog2E);
    }
  }

  // P and dS of the loaded queries and keys.
  void probabilities() {
    const auto span = [&](int64_t m, int64_t count) QIANLI_LAMBDA {
      const int64_t vectors = divide_up(keys_, lanes());
      const int64_t from = s_.first_key(query_ + m) - key_;
      const int64_t to = s_.end_key(query_ + m + count - 1) - key_;
      const int64_t v_begin = std::clamp<int64_t>(from / lanes(), 0, vectors);
      return Span{0, f_.head_dim, v_begin,
                  std::clamp<int64_t>(divide_up(to, lanes()), v_begin, vectors)};
    };
    product({.a = q_,
             .a_row = d_,
             .a_column = 1,
             .b = k_t_,
             .b_row = kTileKeys,
             .c = p_,
             .c_row = kTileKeys,
             .accumulate = false,
             .scale = nullptr},
            queries_, span);
    product({.a = grad_out_,
             .a_row = d_,
             .a_column = 1,
             .b = v_t_,
             .b_row = kTileKeys,
             .c = ds_,
             .c_row = kTileKeys,
             .accumulate = false,
             .scale = nullptr},
            queries_, span);
    for (int64_t i = 0; i < queries_; ++i) softmax_row(i);
  }

  // dK += dS^T Q and dV += P^T dO; rows of the loaded keys.
  void add_key_gradients(float* grad_k, float* grad_v) {
    const auto span = [&](int64_t m, int64_t count) QIANLI_LAMBDA {
      const int64_t from = std::clamp<int64_t>(s_.first_query(key_ + m) - query_, 0, queries_);
      const int64_t to =
          std::clamp<int64_t>(s_.end_query(key_ + m + count - 1) - query_, from, queries_);
      return Span{from, to, 0, vectors_};
    };
    product({.a = p_,
             .a_row = 1,
             .a_column = kTileKeys,
             .b = grad_out_,
             .b_row = d_,
             .c = grad_v,
             .c_row = d_,
             .accumulate = true,
             .scale = nullptr},
            keys_, span);
    product({.a = ds_,
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
    product({.a = ds_,
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

  void store_rows(const float* from, int64_t rows, void* to, int64_t to_row, int64_t head,
                  int64_t first_row) const {
    T* at = static_cast<T*>(to) + first_row * to_row + head * f_.head_dim;
    for (int64_t r = 0; r < rows; ++r) {
      each_vector(f_.head_dim, [&](int64_t j, int64_t n) QIANLI_LAMBDA {
        store(load(from + r * d_ + j, n), at + r * to_row + j, n);
      });
    }
  }

 private:
  HWY_INLINE void softmax_row(int64_t i) {
    const int64_t begin = std::clamp<int64_t>(s_.first_key(query_ + i) - key_, 0, keys_);
    const int64_t end = std::clamp<int64_t>(s_.end_key(query_ + i) - key_, begin, keys_);
    const V factor = set(static_cast<float>(f_.scale * kLog2E));
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
  int64_t d_, vectors_;
  float *k_, *k_t_, *v_t_, *q_, *grad_out_, *p_, *ds_, *lse_, *delta_;
  int64_t key_ = 0, keys_ = 0, query_ = 0, queries_ = 0;
};

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
