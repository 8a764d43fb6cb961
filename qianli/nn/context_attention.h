// Attention over sequences that the ranks of a context group share.
//
//   ring      each rank attends with its queries to the keys of all places as they come by
//             (Liu et al., arXiv:2310.01889; zig-zag: Brandon et al., arXiv:2311.09431)
//   Ulysses   each rank attends with some heads to whole sequences (arXiv:2309.14509)
//   hybrid    both: heads among neighbours, a ring across (Fang and Zhao, arXiv:2405.07719)
//   KV all-gather  each rank attends with its queries to all keys at once
//   adaptive  as the mask asks, a rank attends to keys that it fetched, or for others with theirs
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/nn/forward_pass.h"
#include "qianli/ops/attention.h"

namespace qianli::nn {

// q: [T, heads, D], k: [T, key heads, D], v: [T, key heads, Dv] of the T tokens of this rank;
// returns [T, heads, Dv]. Of `layout` the switches count, the tokens are dealt out by `deal`;
// `chosen` keys are not offered. kept: what stays for the backward pass. heads, ring: the parts of
// the group (plan::context_parts).
at::Tensor context_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const ops::AttentionLayout& layout, ops::Parameter* sinks,
                             const std::shared_ptr<const data::ContextDeal>& deal,
                             data::KeptKeys kept, const dist::Group& heads,
                             const dist::Group& ring);

// ops::attention of a layer, or the above where the pass shares its sequences, or over the slices
// that it has come to; with the pass's dropout.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  ops::AttentionLayout layout, ops::Parameter* sinks, int64_t layer,
                  const ForwardPass& pass);

}  // namespace qianli::nn
