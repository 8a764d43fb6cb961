// Losses that keep the experts of a mixture evenly used: Switch (Fedus et al., arXiv:2101.03961),
// per sequence, per device and of communication (DeepSeek-V2, arXiv:2405.04434), and the router's
// z-loss (Zoph et al., arXiv:2202.08906). Shapes: T tokens, E experts, S segments of the packed
// tokens, k choices per token, G groups.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "qianli/model/spec.h"
#include "qianli/ops/router.h"

namespace qianli::ops {

// How a microbatch is cut into segments, and which of its tokens are here: all, or a rank's where
// several share them.
struct TokenSegments {
  TokenSegments(std::vector<int64_t> starts);  // all: [S + 1], 0 … T
  // `runs`: [n + 1], 0 … tokens here; run i is of segment i mod S. `lengths`: [S], of whole
  // segments. `over_ranks` sums a tensor over the ranks; its gradient is the part of this rank.
  TokenSegments(std::vector<int64_t> runs, std::vector<int64_t> lengths,
                std::function<at::Tensor(const at::Tensor&)> over_ranks);

  std::vector<int64_t> runs, lengths;
  std::function<at::Tensor(const at::Tensor&)> over_ranks;  // empty: all tokens are here

  int64_t count() const { return static_cast<int64_t>(lengths.size()); }
  TokenSegments as_one() const;
  at::Tensor summed(const at::Tensor& own) const { return over_ranks ? over_ranks(own) : own; }
};

// choices[s, e]: how often expert e was chosen by the tokens of segment s that are here. Returns
// [S, E], double.
at::Tensor count_choices(const at::Tensor& experts, const TokenSegments& segments,
                         int64_t num_experts);

// Scalars in the dtype of the probabilities, without their coefficients; undefined where the
// coefficient is 0. A perfectly even use gives 1 for the first three.
struct BalancingLosses {
  at::Tensor tokens;         // over all tokens: E / (k T) sum_e count_e mean_t p[t, e]
  at::Tensor sequence;       // the same of each sequence, their mean weighted by length
  at::Tensor device;         // over groups of experts: mean of the loads, sum of the probabilities
  at::Tensor communication;  // G / (g s) tokens that went to a group, times the same sum
  at::Tensor z;              // mean of logsumexp(logits)^2

  at::Tensor weighted_sum(const model::MixtureOfExperts& moe) const;
};

// Of the whole microbatch, from the tokens that are here and their count_choices. The device and
// communication losses are per sequence where the sequence loss is on.
BalancingLosses balancing_losses(const at::Tensor& logits, const Routing& routing,
                                 const at::Tensor& counts, const TokenSegments& segments,
                                 const model::MixtureOfExperts& moe);

// Returns `output`; in the backward pass `loss` gets the gradient `scale`, as if scale * loss had
// been added to the loss of the model.
at::Tensor inject_loss(const at::Tensor& output, const at::Tensor& loss, double scale);

}  // namespace qianli::ops
