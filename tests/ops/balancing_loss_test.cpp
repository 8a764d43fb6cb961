#include "qianli/ops/balancing_loss.h"

#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/ops/op_harness.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

using model::MixtureOfExperts;
using model::RouterScore;

ops::BalancingLosses losses_of(const at::Tensor& logits, const std::vector<int64_t>& starts,
                               const MixtureOfExperts& moe) {
  const ops::Routing routing = ops::route(logits, {}, moe);
  const at::Tensor counts = ops::count_choices(routing.experts, starts, logits.size(1));
  return ops::balancing_losses(logits, routing, counts, starts, moe);
}

// E = 2, k = 1, logits (0, 0) and (ln 3, 0), both to expert 0: P = (1.25, 0.75), f = (2, 0).
TEST(BalancingLoss, two_tokens_by_hand) {
  const at::Tensor logits = at::tensor({0.0, 0.0, std::log(3.0), 0.0}, at::kDouble).view({2, 2});
  const MixtureOfExperts moe{.num_experts = 2, .top_k = 1, .aux_loss_coeff = 0.5};
  const ops::BalancingLosses losses = losses_of(logits, {0, 2}, moe);
  EXPECT_NEAR(losses.tokens.item<double>(), 1.25, 1e-12);
  EXPECT_NEAR(losses.weighted_sum(moe).item<double>(), 0.625, 1e-12);
  EXPECT_FALSE(losses.sequence.defined() || losses.device.defined() || losses.z.defined());
}

TEST(BalancingLoss, even_use_costs_one) {
  at::Tensor logits = at::zeros({6, 6}, at::kDouble);
  for (int64_t t = 0; t < 6; ++t) logits[t][t] = 1e-9;  // each token to its own expert
  const MixtureOfExperts moe{.num_experts = 6,
                             .top_k = 1,
                             .num_groups = 3,
                             .topk_groups = 3,
                             .aux_loss_coeff = 1,
                             .sequence_aux_loss_coeff = 1,
                             .device_aux_loss_coeff = 1};
  const ops::BalancingLosses losses = losses_of(logits, {0, 6}, moe);
  EXPECT_NEAR(losses.tokens.item<double>(), 1.0, 1e-6);
  EXPECT_NEAR(losses.sequence.item<double>(), 1.0, 1e-6);
  EXPECT_NEAR(losses.device.item<double>(), 1.0, 1e-6);
}

struct Expected {
  double tokens = 0, sequence = 0, device = 0, communication = 0, z = 0;
};

// The formulas as double loops over tokens and experts.
Expected by_loops(const at::Tensor& logits, const at::Tensor& experts,
                  const std::vector<int64_t>& starts, const MixtureOfExperts& moe) {
  const int64_t num_experts = logits.size(1), per_group = num_experts / moe.num_groups;
  const auto* choice = experts.data_ptr<int64_t>();
  const double* z = logits.data_ptr<double>();
  const auto probability = [&](int64_t t, int64_t e) {
    double sum = 0, own = 0;
    for (int64_t i = 0; i < num_experts; ++i) {
      const double score = z[t * num_experts + i];
      const double value =
          moe.score == RouterScore::kSigmoid ? 1.0 / (1.0 + std::exp(-score)) : std::exp(score);
      sum += value;
      if (i == e) own = value;
    }
    return own / sum;
  };
  // sum over experts (or groups) of load * share for the tokens [begin, end)
  const auto balance = [&](int64_t begin, int64_t end, Expected& result) {
    const double s = static_cast<double>(end - begin), k = static_cast<double>(moe.top_k);
    const double groups = static_cast<double>(moe.num_groups);
    double plain = 0;
    for (int64_t g = 0; g < moe.num_groups; ++g) {
      double loads = 0, shares = 0, sent = 0;
      for (int64_t e = g * per_group; e < (g + 1) * per_group; ++e) {
        double count = 0, share = 0;
        for (int64_t t = begin; t < end; ++t) {
          for (int64_t i = 0; i < moe.top_k; ++i) count += choice[t * moe.top_k + i] == e;
          share += probability(t, e) / s;
        }
        const double load = static_cast<double>(num_experts) / (k * s) * count;
        plain += load * share;
        loads += load / static_cast<double>(per_group);
        shares += share;
      }
      for (int64_t t = begin; t < end; ++t) {
        bool any = false;
        for (int64_t i = 0; i < moe.top_k; ++i) any |= choice[t * moe.top_k + i] / per_group == g;
        sent += any;
      }
      result.device += loads * shares;
      result.communication += groups / (static_cast<double>(moe.topk_groups) * s) * sent * shares;
    }
    return plain;
  };
  Expected result, unused;
  result.tokens = balance(0, logits.size(0), unused);
  const double sequences = static_cast<double>(starts.size() - 1);
  for (size_t i = 0; i + 1 < starts.size(); ++i) {
    result.sequence += balance(starts[i], starts[i + 1], result) / sequences;
  }
  result.device /= sequences;
  result.communication /= sequences;
  for (int64_t t = 0; t < logits.size(0); ++t) {
    double sum = 0;
    for (int64_t e = 0; e < num_experts; ++e) sum += std::exp(z[t * num_experts + e]);
    result.z += std::log(sum) * std::log(sum) / static_cast<double>(logits.size(0));
  }
  return result;
}

TEST(BalancingLoss, equals_double_loops) {
  const std::vector<int64_t> starts = {0, 5, 10, 15};
  const at::Tensor logits = normal({15, 8}, 3);
  for (const RouterScore score : {RouterScore::kSoftmax, RouterScore::kSigmoid}) {
    const MixtureOfExperts moe{.num_experts = 8,
                               .top_k = 3,
                               .score = score,
                               .num_groups = 4,
                               .topk_groups = 2,
                               .aux_loss_coeff = 1,
                               .sequence_aux_loss_coeff = 1,
                               .device_aux_loss_coeff = 1,
                               .communication_aux_loss_coeff = 1,
                               .z_loss_coeff = 1};
    const ops::BalancingLosses losses = losses_of(logits, starts, moe);
    const Expected expected = by_loops(logits, ops::route(logits, {}, moe).experts, starts, moe);
    EXPECT_NEAR(losses.tokens.item<double>(), expected.tokens, 1e-12);
    EXPECT_NEAR(losses.sequence.item<double>(), expected.sequence, 1e-12);
    EXPECT_NEAR(losses.device.item<double>(), expected.device, 1e-12);
    EXPECT_NEAR(losses.communication.item<double>(), expected.communication, 1e-12);
    EXPECT_NEAR(losses.z.item<double>(), expected.z, 1e-12);
  }
}

// Without the sequence loss the grouped ones look at all tokens as one.
TEST(BalancingLoss, grouped_losses_of_the_whole_microbatch) {
  const at::Tensor logits = normal({15, 8}, 3);
  const MixtureOfExperts moe{.num_experts = 8,
                             .top_k = 3,
                             .num_groups = 4,
                             .topk_groups = 2,
                             .device_aux_loss_coeff = 1,
                             .communication_aux_loss_coeff = 1};
  const ops::BalancingLosses losses = losses_of(logits, {0, 4, 15}, moe);
  const Expected expected = by_loops(logits, ops::route(logits, {}, moe).experts, {0, 15}, moe);
  EXPECT_NEAR(losses.device.item<double>(), expected.device, 1e-12);
  EXPECT_NEAR(losses.communication.item<double>(), expected.communication, 1e-12);
}

TEST(BalancingLoss, gradients_of_every_loss_are_injected) {
  for (const RouterScore score :
       {RouterScore::kSoftmax, RouterScore::kTopKSoftmax, RouterScore::kSigmoid}) {
    const MixtureOfExperts moe{.num_experts = 8,
                               .top_k = 3,
                               .score = score,
                               .num_groups = 4,
                               .topk_groups = 4,
                               .aux_loss_coeff = 0.7,
                               .sequence_aux_loss_coeff = 0.5,
                               .device_aux_loss_coeff = 0.3,
                               .communication_aux_loss_coeff = 0.2,
                               .z_loss_coeff = 0.1};
    const double scale = 0.25;
    const std::vector<int64_t> starts = {0, 4, 4, 12};
    const at::Tensor logits = normal({12, 8}, 5), cotangent = normal({12, 3}, 6);
    const auto gradient = [&](bool injected) {
      const at::Tensor leaf = logits.clone().requires_grad_(true);
      const ops::Routing routing = ops::route(leaf, {}, moe);
      const at::Tensor counts = ops::count_choices(routing.experts, starts, 8);
      const at::Tensor loss =
          ops::balancing_losses(leaf, routing, counts, starts, moe).weighted_sum(moe);
      const at::Tensor weights =
          injected ? ops::inject_loss(routing.weights, loss, scale) : routing.weights;
      EXPECT_TRUE(weights.detach().equal(routing.weights.detach()));
      at::Tensor total = (weights * cotangent).sum();
      if (!injected) total = total + scale * loss;
      total.backward();
      return leaf.grad();
    };
    expect_close(gradient(true), gradient(false), 1e-14);
  }
}

TEST(BalancingLoss, gradient_in_float64) {
  const MixtureOfExperts moe{.num_experts = 8,
                             .top_k = 3,
                             .score = RouterScore::kSigmoid,
                             .num_groups = 4,
                             .topk_groups = 4,
                             .aux_loss_coeff = 0.7,
                             .sequence_aux_loss_coeff = 0.5,
                             .device_aux_loss_coeff = 0.3,
                             .communication_aux_loss_coeff = 0.2,
                             .z_loss_coeff = 0.1};
  check_gradient(
      {.name = "losses",
       .inputs = {normal({12, 8}, 5)},
       .run = [moe](const Tensors& x, const Parameters&) {
         const std::vector<int64_t> starts = {0, 4, 12};
         const ops::Routing routing = ops::route(x[0], {}, moe);
         const at::Tensor counts = ops::count_choices(routing.experts, starts, 8);
         return ops::balancing_losses(x[0], routing, counts, starts, moe).weighted_sum(moe);
       }});
}

}  // namespace
}  // namespace qianli::testing
