// Attention to keys that come a part at a time, in any order: each part gives a result with the
// logarithm of its softmax sum, results are merged by these, and the backward pass of a part needs
// no more than the merged result (ring attention, Liu et al., arXiv:2310.01889). Nothing here
// records for autograd. CPU and CUDA kernels in float32 and bfloat16, the reference for the rest.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/attention.h"

namespace qianli::ops {

// Rows that have seen no key: out 0 and lse -infinity. Both undefined: no part was merged yet.
struct AttentionPart {
  at::Tensor out;  // [Tq, heads, Dv], contiguous
  at::Tensor lse;  // [heads, Tq], float32, or float64 where the queries are
};

// As ops::attention for the keys of `layout`, without chosen keys. The result is in q's dtype.
AttentionPart attention_part(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const AttentionLayout& layout);

// `sum` becomes the attention to the keys of both; its `out` has the dtype of lse.
void merge(AttentionPart& sum, const AttentionPart& part);

// Adds one learned logit per head to the denominators: sinks [heads], in the dtype of lse.
void add_sinks(AttentionPart& sum, const at::Tensor& sinks);
// The gradient of the sinks [heads], from the attention with them and the gradient of its output.
at::Tensor sink_gradient(const AttentionPart& whole, const at::Tensor& sinks,
                         const at::Tensor& grad_out);

struct AttentionGradients {
  at::Tensor q, k, v;  // shape and dtype of the inputs
};
// Gradients by way of these keys. `whole`: the attention to all keys (and sinks); grad_out: of its
// output, which is in q's dtype as is whole.out.
AttentionGradients attention_part_backward(const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v, const AttentionLayout& layout,
                                           const AttentionPart& whole, const at::Tensor& grad_out);

}  // namespace qianli::ops
