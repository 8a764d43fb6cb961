// The router of a mixture of experts: which experts a token goes to, and with what weight. All of
// it is float32, float64 for a float64 model. Shapes: T tokens, H hidden size, E experts (zero
// experts included), k choices per token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "qianli/model/spec.h"
#include "qianli/ops/parameter.h"

namespace qianli::ops {

// x W^T (+ b) in `dtype` whatever the type of x [T, H], weight [E, H] and bias [E] or null; in
// float64 where x is.
at::Tensor router_logits(const at::Tensor& x, Parameter& weight, Parameter* bias = nullptr,
                         model::RouterDtype dtype = model::RouterDtype::kFloat32);

// Random numbers of a microbatch: functions of the key, and of the row's number in it.
struct RandomRows {
  RandomRows(uint64_t given_key = 0, std::vector<int64_t> given_rows = {})
      : key(given_key), rows(std::move(given_rows)) {}
  uint64_t key;
  std::vector<int64_t> rows;  // [T]: the numbers; empty: 0, 1, 2 …
};

// x * U(1 - amplitude, 1 + amplitude), element by element.
at::Tensor jitter(const at::Tensor& x, double amplitude, const RandomRows& random);

struct Routing {
  at::Tensor weights;        // [T, k], carries the gradient
  at::Tensor experts;        // [T, k] int64, each token's choices from best to worst; -1: dropped
  at::Tensor probabilities;  // [T, E], rows sum to 1: what the balancing losses look at
};

// Scores, group limit, choice and weights as `moe` says. Equal scores: the lower index wins.
// selection_bias: [E] or undefined, added to the scores for the choice alone. With `random`,
// that is in training, moe.sinkhorn has the experts chosen from the balanced scores (sinkhorn.h),
// and the sparse mixer samples its experts; its weights take the gradient of its authors (Liu et
// al., arXiv:2409.12136), the numbers are functions of the key. With `given` ([T, k] int64) these
// are the experts, and the router weighs them alone.
Routing route(const at::Tensor& logits, const at::Tensor& selection_bias,
              const model::MixtureOfExperts& moe, const std::optional<RandomRows>& random = {},
              const at::Tensor& given = {});

// scores: [T, E]. The `count` largest of each row, from largest to smallest: [T, count] int64.
at::Tensor choose_largest(const at::Tensor& scores, int64_t count);

// Of the tokens that chose an expert `capacity` stay, which ones the policy says; for the others
// weight 0 and expert -1. Experts from num_experts on (zero experts) take everything.
Routing within_capacity(const Routing& routing, int64_t num_experts, int64_t capacity,
                        model::TokenDropPolicy policy = model::TokenDropPolicy::kProbs);

}  // namespace qianli::ops
