// Losses that keep the experts of a mixture evenly used: Switch (Fedus et al., arXiv:2101.03961),
// per sequence, per device and of communication (DeepSeek-V2, arXiv:2405.04434), and the router's
// z-loss (Zoph et al., arXiv:2202.08906). Shapes: T tokens, E experts, S segments of the packed
// tokens, k choices per token, G groups.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "qianli/model/spec.h"
#include "qianli/ops/router.h"

namespace qianli::ops {

// choices[s, e]: how often expert e was chosen by the tokens of segment s. starts: [S + 1], 0 … T.
// Returns [S, E], double.
at::Tensor count_choices(const at::Tensor& experts, const std::vector<int64_t>& starts,
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

// counts: count_choices of the whole microbatch (where ranks hold parts of a sequence: summed over
// them). The device and communication losses are per sequence where the sequence loss is on.
BalancingLosses balancing_losses(const at::Tensor& logits, const Routing& routing,
                                 const at::Tensor& counts, const std::vector<int64_t>& starts,
                                 const model::MixtureOfExperts& moe);

// Returns `output`; in the backward pass `loss` gets the gradient `scale`, as if scale * loss had
// been added to the loss of the model.
at::Tensor inject_loss(const at::Tensor& output, const at::Tensor& loss, double scale);

}  // namespace qianli::ops
