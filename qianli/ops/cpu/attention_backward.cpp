// Attention backward, after the flash attention scheme: probabilities are computed again from the
// saved logarithm of the softmax sum, tile by tile.
//
//   P = exp(scale Q K^T - lse)   dP = dO V^T   dS = scale P (dP - rowsum(dO O))
//   dV = P^T dO                  dK = dS^T Q   dQ = dS K
//
// A task owns a key head of a sequence and computes all five products of each tile once. Where
// there are fewer such tasks than threads, one pass over blocks of keys (dK, dV) and one over
// blocks of queries (dQ) have more of them, for two products more. No two tasks write the same
// memory.
#include <cmath>
#include <vector>

#include "qianli/ops/cpu/attention.h"
#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/attention_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

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

// All gradients of one key head of one sequence. sums: dQ of one head, dK, dV.
template <class T>
void backward_key_head(const AttentionBackward& a, int64_t sequence, int64_t kv_head, float* memory,
                       float* sums) {
  BackwardTiles<T> tiles(a, sequence, memory);
  const Sequence& s = tiles.sequence();
  const int64_t group = a.forward.query_heads / a.forward.key_heads, d = tiles.row_floats();
  float *grad_q = sums, *grad_k = grad_q + s.q_len * d, *grad_v = grad_k + s.k_len * d;
  std::fill_n(grad_k, 2 * s.k_len * d, 0.0f);
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    std::fill_n(grad_q, s.q_len * d, 0.0f);
    for (int64_t key = 0; key < s.k_len; key += kTileKeys) {
      tiles.load_keys(kv_head, key);
      for (int64_t query = tiles.first_query(key); query < tiles.end_query(key);
           query += kTileQueries) {
        tiles.load_queries(head, query);
        tiles.probabilities();
        tiles.add_key_gradients(grad_k + key * d, grad_v + key * d);
        tiles.add_query_gradient(grad_q + query * d);
      }
    }
    tiles.store_rows(grad_q, s.q_len, a.grad_q, a.grad_q_stride, head, s.q_start);
  }
  tiles.store_rows(grad_k, s.k_len, a.grad_k, a.grad_k_stride, kv_head, s.k_start);
  tiles.store_rows(grad_v, s.k_len, a.grad_v, a.grad_v_stride, kv_head, s.k_start);
}

// dK and dV of one block of keys.
template <class T>
void backward_key_block(const AttentionBackward& a, int64_t sequence, int64_t kv_head, int64_t key,
                        float* memory, float* sums) {
  BackwardTiles<T> tiles(a, sequence, memory);
  const Sequence& s = tiles.sequence();
  const int64_t group = a.forward.query_heads / a.forward.key_heads, d = tiles.row_floats();
  const int64_t keys = std::min(kTileKeys, s.k_len - key);
  float *grad_k = sums, *grad_v = sums + kTileKeys * d;
  std::fill_n(sums, 2 * kTileKeys * d, 0.0f);
  tiles.load_keys(kv_head, key);
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t query = tiles.first_query(key); query < tiles.end_query(key);
         query += kTileQueries) {
      tiles.load_queries(head, query);
      tiles.probabilities();
      tiles.add_key_gradients(grad_k, grad_v);
    }
  }
  tiles.store_rows(grad_k, keys, a.grad_k, a.grad_k_stride, kv_head, s.k_start + key);
  tiles.store_rows(grad_v, keys, a.grad_v, a.grad_v_stride, kv_head, s.k_start + key);
}

// dQ of one block of queries.
template <class T>
void backward_query_block(const AttentionBackward& a, int64_t sequence, int64_t head, int64_t query,
                          float* memory, float* sums) {
  BackwardTiles<T> tiles(a, sequence, memory);
  const Sequence& s = tiles.sequence();
  const int64_t group = a.forward.query_heads / a.forward.key_heads;
  std::fill_n(sums, kTileQueries * tiles.row_floats(), 0.0f);
  tiles.load_queries(head, query);
  for (int64_t key = tiles.first_key(query); key < tiles.end_key(query); key += kTileKeys) {
    tiles.load_keys(head / group, key);
    tiles.probabilities();
    tiles.add_query_gradient(sums);
  }
  tiles.store_rows(sums, std::min(kTileQueries, s.q_len - query), a.grad_q, a.grad_q_stride, head,
                   s.q_start + query);
}

void BackwardKeyHead(const AttentionBackward& a, int64_t sequence, int64_t kv_head, float* memory,
                     float* sums) {
  if (a.forward.dtype == Dtype::kFloat32) {
    return backward_key_head<float>(a, sequence, kv_head, memory, sums);
  }
  backward_key_head<uint16_t>(a, sequence, kv_head, memory, sums);
}

void BackwardKeyBlock(const AttentionBackward& a, int64_t sequence, int64_t kv_head, int64_t key,
                      float* memory, float* sums) {
  if (a.forward.dtype == Dtype::kFloat32) {
    return backward_key_block<float>(a, sequence, kv_head, key, memory, sums);
  }
  backward_key_block<uint16_t>(a, sequence, kv_head, key, memory, sums);
}

void BackwardQueryBlock(const AttentionBackward& a, int64_t sequence, int64_t head, int64_t query,
                        float* memory, float* sums) {
  if (a.forward.dtype == Dtype::kFloat32) {
    return backward_query_block<float>(a, sequence, head, query, memory, sums);
  }
  backward_query_block<uint16_t>(a, sequence, head, query, memory, sums);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {
namespace {

HWY_EXPORT(BackwardKeyHead);
HWY_EXPORT(BackwardKeyBlock);
HWY_EXPORT(BackwardQueryBlock);

// K, K^T, V^T, Q, dO; P, dS; lse, delta.
int64_t backward_tile_floats(int64_t head_dim) {
  return 5 * kTileKeys * padded_head_dim(head_dim) + 2 * kTileKeys * kTileQueries +
         2 * kTileQueries;
}

void by_key_heads(const AttentionBackward& args) {
  const AttentionForward& f = args.forward;
  const int64_t work = backward_tile_floats(f.head_dim), d = padded_head_dim(f.head_dim);
  parallel_tasks(f.sequences * f.key_heads, [&](int64_t task) {
    const int64_t s = task / f.key_heads;
    const Sequence sequence = sequence_of(f, s);
    const int64_t sums = (sequence.q_len + 2 * sequence.k_len) * d;
    float* memory = scratch(Slot::kTask, static_cast<size_t>(work + sums));
    HWY_DYNAMIC_DISPATCH(BackwardKeyHead)(args, s, task % f.key_heads, memory, memory + work);
  });
}

// first[s]: blocks before sequence s; blocks of kTileKeys rows, counted by starts.
void count_blocks(const int64_t* starts, int64_t sequences, std::vector<int64_t>& first) {
  first.assign(1, 0);
  for (int64_t s = 0; s < sequences; ++s) {
    first.push_back(first.back() + divide_up(starts[s + 1] - starts[s], kTileKeys));
  }
}

// body(sequence, block start, memory) for every block of every sequence and each of `heads` heads.
template <class Body>
void over_blocks(const AttentionForward& f, const int64_t* starts, int64_t heads,
                 const Body& body) {
  static_assert(kTileKeys == kTileQueries);
  thread_local std::vector<int64_t> first_blocks;
  std::vector<int64_t>& first = first_blocks;
  count_blocks(starts, f.sequences, first);
  const int64_t work = backward_tile_floats(f.head_dim);
  const int64_t sums = 2 * kTileKeys * padded_head_dim(f.head_dim);
  parallel_tasks(first.back() * heads, [&](int64_t task) {
    const int64_t block = task / heads;
    const int64_t s = std::upper_bound(first.begin(), first.end(), block) - first.begin() - 1;
    float* memory = scratch(Slot::kTask, static_cast<size_t>(work + sums));
    body(s, task % heads, (block - first[static_cast<size_t>(s)]) * kTileKeys, memory,
         memory + work);
  });
}

void by_blocks(const AttentionBackward& args) {
  const AttentionForward& f = args.forward;
  over_blocks(f, f.k_starts, f.key_heads,
              [&](int64_t s, int64_t kv_head, int64_t key, float* memory, float* sums) {
                HWY_DYNAMIC_DISPATCH(BackwardKeyBlock)(args, s, kv_head, key, memory, sums);
              });
  over_blocks(f, f.q_starts, f.query_heads,
              [&](int64_t s, int64_t head, int64_t query, float* memory, float* sums) {
                HWY_DYNAMIC_DISPATCH(BackwardQueryBlock)(args, s, head, query, memory, sums);
              });
}

}  // namespace

void attention_backward(const AttentionBackward& args, Stream) {
  const int64_t threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  if (args.forward.sequences * args.forward.key_heads >= threads) return by_key_heads(args);
  by_blocks(args);
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
