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

#include "qianli/ops/cpu/attention_backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

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
