// Scaled dot-product attention over packed sequences, without the score matrix
// (FlashAttention-2, Dao 2023, on all devices).
//
//   z = scale q k;  z = softcap tanh(z / softcap);  z += slope (j - p)
//   out = dropout(softmax(masked z)) v
//
// for a key j and a query at position p of its sequence. All switches work together, forward and
// backward, with fewer queries than keys (a cache) and with key heads shared by several query
// heads.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "qianli/ops/dropout.h"
#include "qianli/ops/parameter.h"

namespace qianli::ops {

// Sequence s owns query rows [q_starts[s], q_starts[s+1]) and key rows [k_starts[s],
// k_starts[s+1]). Causal masks are aligned at the end, the last query sees the last key, unless
// `offsets` say where the queries stand.
struct AttentionLayout {
  std::vector<int64_t> q_starts;
  std::vector<int64_t> k_starts;
  bool causal = true;
  int64_t window = 0;    // with w > 0 a query sees only the last w keys it may see
  double scale = 1.0;    // of the scores, before the softmax
  double softcap = 0.0;  // c > 0: a score z becomes c tanh(z / c), before the masks
  at::Tensor
      slopes;  // ALiBi: one slope per query head (alibi_slopes, or a part of them); undefined: none
  // [Tq, n] int64: of the keys above, a query sees only those listed in its row, counted from the
  // first key of its sequence, each once. Entries that are no key of the sequence, like -1, fill up
  // rows. Undefined: all. Shared by all heads (the indexer of DeepSeek-V3.2).
  at::Tensor chosen;
  // [sequences]: the position of the first query, counted from the first key; may lie before the
  // keys or behind them. Empty: aligned at the end.
  std::vector<int64_t> offsets;
  // Of the softmax; dropout.threshold 0: none.
  Dropout dropout = {};
  std::vector<int64_t> origins = {};  // with dropout: [sequences], of the first key of each
  int64_t first_head = 0;             // number of the first query head in the undivided activation

  int64_t sequences() const { return static_cast<int64_t>(q_starts.size()) - 1; }
  int64_t offset(size_t sequence) const {
    if (!offsets.empty()) return offsets[sequence];
    return (k_starts[sequence + 1] - k_starts[sequence]) -
           (q_starts[sequence + 1] - q_starts[sequence]);
  }
};

// q: [Tq, heads, D]; k: [Tk, key heads, D]; v: [Tk, key heads, Dv], key heads dividing heads. The
// last axis of each is contiguous, rows and heads may lie anywhere (a view of a fused projection, a
// cache laid out by heads, values that are a part of the keys). Returns [Tq, heads, Dv]; rows that
// see no key are 0.
//
// sinks: [heads] or null, one learned logit per head in the denominator of the softmax (gpt-oss):
//   out = sum_j exp(z_j) v_j / (sum_j exp(z_j) + exp(sink)).
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionLayout& layout, Parameter* sinks = nullptr);

// The slopes of ALiBi (Press et al., arXiv:2108.12409) for `heads` heads, float64 on the CPU: 2^(-8
// (i + 1) / n) for a power of two n; otherwise those of the largest power of two p below, then
// every second one of 2p. Tensor-parallel ranks take their part of the whole.
at::Tensor alibi_slopes(int64_t heads);

namespace reference {
// [Sq, Sk] bool: the keys that the queries of sequence s see by their positions.
at::Tensor visible_keys(const AttentionLayout& layout, size_t s, at::Device device);
// The probabilities [heads, Sq, Sk] of sequence s after dropout.
at::Tensor dropped(const at::Tensor& probabilities, const AttentionLayout& layout, size_t s);
// Scores of sequence s before the masks. q: [heads, Sq, D]; k: [heads, Sk, D].
at::Tensor scores(const at::Tensor& q, const at::Tensor& k, const AttentionLayout& layout,
                  size_t s);
// sinks: [heads] or undefined.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionLayout& layout, const at::Tensor& sinks = {});
}  // namespace reference

}  // namespace qianli::ops
