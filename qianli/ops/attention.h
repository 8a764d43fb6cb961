// Scaled dot-product attention over packed sequences, without the score matrix
// (FlashAttention-2, Dao 2023, on all devices).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace qianli::ops {

// Sequence s owns query rows [q_starts[s], q_starts[s+1]) and key rows [k_starts[s], k_starts[s+1]).
// Causal masks are aligned at the end: the last query sees the last key.
struct AttentionLayout {
  std::vector<int64_t> q_starts;
  std::vector<int64_t> k_starts;
  bool causal = true;
  int64_t window = 0;  // with w > 0 a query sees only the last w keys it may see
  double scale = 1.0;  // of the scores, before the softmax
};

// q: [Tq, heads, D]; k, v: [Tk, key heads, D], key heads dividing heads. Returns [Tq, heads, D].
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionLayout& layout);

namespace reference {
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionLayout& layout);
}

}  // namespace qianli::ops
