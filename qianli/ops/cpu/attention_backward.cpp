// Attention backward, after the flash attention scheme: probabilities are computed again from the
// saved logarithm of the softmax sum, tile by tile.
//
//   P = exp(scale Q K^T - lse)   dP = dO V^T   dS = scale P (dP - rowsum(dO O))
//   dV = P^T dO                  dK = dS^T Q   dQ = dS K
//
// With dropout and its mask M, scaled: dP = (dO V^T) M and dV = (P M)^T dO, where M is made again.
//
// A task owns a key head of a sequence and computes all five products of each tile once. Where
// there are fewer such tasks than threads, one pass over blocks of keys (dK, dV) and one over
// blocks of queries (dQ) have more of them, for two products more. No two tasks write the same
// memory. The gradient of a sink is -sum over rows of exp(sink - lse) rowsum(dO O).
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
void backward_key_head(const AttentionBackward& a, const ChosenMask& mask, int64_t sequence,
                       int64_t kv_head, float* memory, float* sums) {
  BackwardTiles<T> tiles(a, mask, sequence, memory);
  const Sequence& s = tiles.sequence();
  const int64_t group = a.forward.query_heads / a.forward.key_heads;
  const int64_t d = tiles.row_floats(), dv = tiles.value_row_floats();
  float *grad_q = sums, *grad_k = grad_q + s.q_len * d, *grad_v = grad_k + s.k_len * d;
  std::fill_n(grad_k, s.k_len * (d + dv), 0.0f);
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    std::fill_n(grad_q, s.q_len * d, 0.0f);
    for (int64_t key = 0; key < s.k_len; key += kTileKeys) {
      tiles.load_keys(kv_head, key);
      for (int64_t query = tiles.first_query(key); query < tiles.end_query(key);
           query += kTileQueries) {
        if (!tiles.meet(query, key)) continue;
        tiles.load_queries(head, query);
        tiles.probabilities();
        tiles.add_key_gradients(grad_k + key * d, grad_v + key * dv);
        tiles.add_query_gradient(grad_q + query * d);
      }
    }
    tiles.store_grad_q(grad_q, s.q_len, head, 0);
  }
  tiles.store_grad_k(grad_k, s.k_len, kv_head, 0);
  tiles.store_grad_v(grad_v, s.k_len, kv_head, 0);
}

// dK and dV of one block of keys.
template <class T>
void backward_key_block(const AttentionBackward& a, const ChosenMask& mask, int64_t sequence,
                        int64_t kv_head, int64_t key, float* memory, float* sums) {
  BackwardTiles<T> tiles(a, mask, sequence, memory);
  const Sequence& s = tiles.sequence();
  const int64_t group = a.forward.query_heads / a.forward.key_heads;
  const int64_t d = tiles.row_floats(), dv = tiles.value_row_floats();
  const int64_t keys = std::min(kTileKeys, s.k_len - key);
  float *grad_k = sums, *grad_v = sums + kTileKeys * d;
  std::fill_n(sums, kTileKeys * (d + dv), 0.0f);
  tiles.load_keys(kv_head, key);
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t query = tiles.first_query(key); query < tiles.end_query(key);
         query += kTileQueries) {
      if (!tiles.meet(query, key)) continue;
      tiles.load_queries(head, query);
      tiles.probabilities();
      tiles.add_key_gradients(grad_k, grad_v);
    }
  }
  tiles.store_grad_k(grad_k, keys, kv_head, key);
  tiles.store_grad_v(grad_v, keys, kv_head, key);
}

// dQ of one block of queries.
template <class T>
void backward_query_block(const AttentionBackward& a, const ChosenMask& mask, int64_t sequence,
                          int64_t head, int64_t query, float* memory, float* sums) {
  BackwardTiles<T> tiles(a, mask, sequence, memory);
  const Sequence& s = tiles.sequence();
  const int64_t group = a.forward.query_heads / a.forward.key_heads;
  std::fill_n(sums, kTileQueries * tiles.row_floats(), 0.0f);
  tiles.load_queries(head, query);
  for (int64_t key = tiles.first_key(query); key < tiles.end_key(query); key += kTileKeys) {
    if (!tiles.meet(query, key)) continue;
    tiles.load_keys(head / group, key);
    tiles.probabilities();
    tiles.add_query_gradient(sums);
  }
  tiles.store_grad_q(sums, std::min(kTileQueries, s.q_len - query), head, query);
}

template <class T>
void sink_gradient(const AttentionBackward& a, int64_t head) {
  const AttentionForward& f = a.forward;
  const int64_t rows = f.q_starts[f.sequences];
  double sum = 0.0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = (row * f.query_heads + head) * f.value_dim;
    const float delta = row_dot(static_cast<const T*>(f.out) + at,
                                static_cast<const T*>(a.grad_out) + at, f.value_dim);
    sum += std::exp(static_cast<double>(f.sinks[head]) - f.lse[head * rows + row]) * delta;
  }
  a.grad_sinks[head] -= static_cast<float>(sum);
}

void BackwardKeyHead(const AttentionBackward& a, const ChosenMask& mask, int64_t sequence,
                     int64_t kv_head, float* memory, float* sums) {
  if (a.forward.dtype == Dtype::kFloat32) {
    return backward_key_head<float>(a, mask, sequence, kv_head, memory, sums);
  }
  backward_key_head<uint16_t>(a, mask, sequence, kv_head, memory, sums);
}

void BackwardKeyBlock(const AttentionBackward& a, const ChosenMask& mask, int64_t sequence,
                      int64_t kv_head, int64_t key, float* memory, float* sums) {
  if (a.forward.dtype == Dtype::kFloat32) {
    return backward_key_block<float>(a, mask, sequence, kv_head, key, memory, sums);
  }
  backward_key_block<uint16_t>(a, mask, sequence, kv_head, key, memory, sums);
}

void BackwardQueryBlock(const AttentionBackward& a, const ChosenMask& mask, int64_t sequence,
                        int64_t head, int64_t query, float* memory, float* sums) {
  if (a.forward.dtype == Dtype::kFloat32) {
    return backward_query_block<float>(a, mask, sequence, head, query, memory, sums);
  }
  backward_query_block<uint16_t>(a, mask, sequence, head, query, memory, sums);
}

void SinkGradient(const AttentionBackward& a, int64_t head) {
  if (a.forward.dtype == Dtype::kFloat32) return sink_gradient<float>(a, head);
  sink_gradient<uint16_t>(a, head);
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
HWY_EXPORT(SinkGradient);

void by_key_heads(const AttentionBackward& args, const ChosenMask& mask) {
  const AttentionForward& f = args.forward;
  const int64_t work = backward_tile_floats(f), d = padded(f.head_dim), dv = padded(f.value_dim);
  parallel_tasks(f.sequences * f.key_heads, [&](int64_t task) {
    const int64_t s = task / f.key_heads;
    const Sequence sequence = sequence_of(f, s);
    const int64_t sums = sequence.q_len * d + sequence.k_len * (d + dv);
    float* memory = scratch(Slot::kTask, static_cast<size_t>(work + sums));
    HWY_DYNAMIC_DISPATCH(BackwardKeyHead)(args, mask, s, task % f.key_heads, memory, memory + work);
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
  const int64_t work = backward_tile_floats(f);
  const int64_t sums = kTileKeys * (padded(f.head_dim) + padded(f.value_dim));
  parallel_tasks(first.back() * heads, [&](int64_t task) {
    const int64_t block = task / heads;
    const int64_t s = std::upper_bound(first.begin(), first.end(), block) - first.begin() - 1;
    float* memory = scratch(Slot::kTask, static_cast<size_t>(work + sums));
    body(s, task % heads, (block - first[static_cast<size_t>(s)]) * kTileKeys, memory,
         memory + work);
  });
}

void by_blocks(const AttentionBackward& args, const ChosenMask& mask) {
  const AttentionForward& f = args.forward;
  over_blocks(f, f.k_starts, f.key_heads,
              [&](int64_t s, int64_t kv_head, int64_t key, float* memory, float* sums) {
                HWY_DYNAMIC_DISPATCH(BackwardKeyBlock)(args, mask, s, kv_head, key, memory, sums);
              });
  over_blocks(f, f.q_starts, f.query_heads,
              [&](int64_t s, int64_t head, int64_t query, float* memory, float* sums) {
                HWY_DYNAMIC_DISPATCH(BackwardQueryBlock)(args, mask, s, head, query, memory, sums);
              });
}

}  // namespace

void attention_backward(const AttentionBackward& args, Stream) {
  const int64_t threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  const ChosenMask mask = chosen_mask(args.forward);
  if (args.forward.sequences * args.forward.key_heads >= threads) {
    by_key_heads(args, mask);
  } else {
    by_blocks(args, mask);
  }
  if (args.grad_sinks) {
    parallel_tasks(args.forward.query_heads, [&](int64_t head) {
      HWY_DYNAMIC_DISPATCH(SinkGradient)(args, head);
    });
  }
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
