#include "qianli/ops/router.h"

#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "qianli/ops/sinkhorn.h"
#include "tests/ops/op_harness.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

using model::GroupScore;
using model::MixtureOfExperts;
using model::RouterScore;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Choice {
  int64_t expert;
  double weight;
};

std::vector<double> softmax(const std::vector<double>& z) {
  std::vector<double> p;
  double sum = 0;
  for (const double value : z) sum += std::exp(value);
  for (const double value : z) p.push_back(std::exp(value) / sum);
  return p;
}

// Indices of the `count` largest, the lower index first among equals.
std::vector<int64_t> largest(std::vector<double> values, int64_t count) {
  std::vector<int64_t> found;
  for (int64_t i = 0; i < count; ++i) {
    int64_t best = -1;
    for (int64_t e = 0; e < static_cast<int64_t>(values.size()); ++e) {
      if (std::find(found.begin(), found.end(), e) != found.end()) continue;
      if (best < 0 || values[e] > values[best]) best = e;
    }
    found.push_back(best);
  }
  return found;
}

// The text of the specification, one token at a time.
std::vector<Choice> route_by_loops(const std::vector<double>& z, const std::vector<double>& bias,
                                   const MixtureOfExperts& moe) {
  const auto size = static_cast<int64_t>(z.size());
  std::vector<double> scores = z;
  if (moe.score == RouterScore::kSoftmax) scores = softmax(z);
  if (moe.score == RouterScore::kSigmoid) {
    for (double& score : scores) score = 1.0 / (1.0 + std::exp(-score));
  }
  std::vector<double> selection = scores;
  for (int64_t e = 0; e < size && !bias.empty(); ++e) selection[e] += bias[e];
  if (moe.num_groups > 1) {
    const int64_t per_group = size / moe.num_groups;
    std::vector<double> group_scores;
    for (int64_t g = 0; g < moe.num_groups; ++g) {
      std::vector<double> own(selection.begin() + g * per_group,
                              selection.begin() + (g + 1) * per_group);
      std::sort(own.rbegin(), own.rend());
      group_scores.push_back(moe.group_score == GroupScore::kMax ? own[0] : own[0] + own[1]);
    }
    const auto kept = largest(group_scores, moe.topk_groups);
    for (int64_t e = 0; e < size; ++e) {
      if (std::find(kept.begin(), kept.end(), e / per_group) == kept.end())
        selection[e] = -kInfinity;
    }
  }
  std::vector<Choice> choices;
  std::vector<double> taken;
  for (const int64_t e : largest(selection, moe.top_k)) {
    choices.push_back({e, scores[e]});
    taken.push_back(scores[e]);
  }
  double sum = 0;
  for (int64_t i = 0; i < moe.top_k; ++i) {
    if (moe.score == RouterScore::kTopKSoftmax) choices[i].weight = softmax(taken)[i];
    sum += choices[i].weight;
  }
  for (Choice& choice : choices) {
    if (moe.normalize_top_k) choice.weight /= sum;
    choice.weight *= moe.scaling_factor;
  }
  return choices;
}

std::vector<double> row_of(const at::Tensor& x, int64_t row) {
  const double* first = x.data_ptr<double>() + row * x.size(1);
  return {first, first + x.size(1)};
}

const std::vector<MixtureOfExperts> kRouters = {
    {.num_experts = 12, .top_k = 2, .score = RouterScore::kTopKSoftmax},
    {.num_experts = 12, .top_k = 1, .score = RouterScore::kSoftmax},
    {.num_experts = 12, .top_k = 4, .score = RouterScore::kSoftmax, .normalize_top_k = true},
    {.num_experts = 12,
     .top_k = 3,
     .score = RouterScore::kSoftmax,
     .scaling_factor = 16.0,
     .num_groups = 4,
     .topk_groups = 2,
     .group_score = GroupScore::kMax},
    {.num_experts = 12,
     .top_k = 4,
     .score = RouterScore::kSigmoid,
     .normalize_top_k = true,
     .scaling_factor = 2.5,
     .num_groups = 4,
     .topk_groups = 2,
     .selection_bias = true},
    {.num_experts = 8,
     .top_k = 3,
     .num_zero_experts = 4,
     .score = RouterScore::kSoftmax,
     .scaling_factor = 6.0,
     .selection_bias = true},
    {.num_experts = 12, .top_k = 12, .score = RouterScore::kSigmoid},
};

TEST(Router, equals_double_loops) {
  const at::Tensor logits = normal({33, 12}, 1), bias = normal({1, 12}, 2) * 0.5;
  for (const MixtureOfExperts& moe : kRouters) {
    const at::Tensor own_bias = moe.selection_bias ? bias[0] : at::Tensor();
    const ops::Routing routing = ops::route(logits, own_bias, moe);
    for (int64_t t = 0; t < logits.size(0); ++t) {
      const auto expected = route_by_loops(
          row_of(logits, t), moe.selection_bias ? row_of(bias, 0) : std::vector<double>(), moe);
      for (int64_t i = 0; i < moe.top_k; ++i) {
        ASSERT_EQ(routing.experts[t][i].item<int64_t>(), expected[i].expert) << t << ", " << i;
        ASSERT_NEAR(routing.weights[t][i].item<double>(), expected[i].weight, 1e-12);
      }
    }
    expect_close(routing.probabilities.sum(1), at::ones({33}, at::kDouble), 1e-12);
  }
}

TEST(Router, gradient_of_the_weights) {
  for (const MixtureOfExperts& moe : kRouters) {
    check_gradient({.name = "route",
                    .inputs = {normal({7, 12}, 1)},
                    .run = [&moe](const Tensors& x, const Parameters&) {
                      return ops::route(x[0], {}, moe).weights;
                    }});
  }
}

TEST(Router, logits_are_wide_whatever_the_type_of_the_model) {
  const at::Tensor x = normal({5, 9}, 1).to(at::kBFloat16).requires_grad_(true);
  ops::Parameter weight("weight", normal({4, 9}, 2).to(at::kBFloat16));
  ops::Parameter bias("bias", normal({4}, 3).to(at::kBFloat16));
  weight.attach_grad(at::full({4, 9}, 7.0, at::kFloat));
  bias.attach_grad(at::full({4}, 7.0, at::kFloat));
  const at::Tensor logits = ops::router_logits(x, weight, &bias);
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
  const at::Tensor exact = x.detach().to(at::kDouble), w = weight.value().to(at::kDouble);
  expect_close(logits, exact.matmul(w.t()) + bias.value().to(at::kDouble), 1e-6);
  const at::Tensor grad = normal({5, 4}, 4).to(at::kFloat);
  logits.backward(grad);
  expect_close(weight.grad(), grad.to(at::kDouble).t().matmul(exact), 1e-6);
  expect_close(bias.grad(), grad.to(at::kDouble).sum(0), 1e-6);
  expect_close(x.grad(), grad.to(at::kDouble).matmul(w), 1e-2);
}

// 1 and 1 + 2^-30 are equal in float32: there the first wins.
TEST(Router, float64_tells_logits_apart) {
  const at::Tensor x = at::ones({1, 2}, at::kFloat).requires_grad_(true);
  ops::Parameter weight("weight", at::tensor({1.0, 0.0, 1.0, 0x1p-30}, at::kFloat).view({2, 2}));
  weight.attach_grad(at::full({2, 2}, 7.0, at::kFloat));
  const MixtureOfExperts moe{.num_experts = 2, .top_k = 1, .score = RouterScore::kSoftmax};
  const auto choice = [&](model::RouterDtype dtype) {
    return ops::route(ops::router_logits(x, weight, nullptr, dtype), {}, moe).experts;
  };
  EXPECT_EQ(choice(model::RouterDtype::kFloat32).item<int64_t>(), 0);
  EXPECT_EQ(choice(model::RouterDtype::kFloat64).item<int64_t>(), 1);
  ops::router_logits(x, weight, nullptr, model::RouterDtype::kFloat64)
      .backward(at::tensor({1.0, 2.0}, at::kDouble).view({1, 2}));
  expect_close(weight.grad(), at::tensor({1.0, 1.0, 2.0, 2.0}, at::kDouble).view({2, 2}), 1e-7);
  expect_close(x.grad(), at::tensor({3.0, 0x1p-29}, at::kDouble).view({1, 2}), 1e-7);
}

TEST(Router, equal_scores_go_to_the_lower_index) {
  const at::Tensor scores = at::tensor({1.0, 3.0, 3.0, 0.0, 3.0, 1.0}, at::kDouble).view({1, 6});
  EXPECT_TRUE(
      ops::choose_largest(scores, 5).equal(at::tensor({1, 2, 4, 0, 5}, at::kLong).view({1, 5})));
  const at::Tensor equal = at::zeros({2, 4}, at::kFloat);
  EXPECT_TRUE(ops::choose_largest(equal, 4)[1].equal(at::tensor({0, 1, 2, 3}, at::kLong)));
}

TEST(Router, rows_of_nan_still_choose_different_experts) {
  const at::Tensor scores = at::full({1, 5}, std::nan(""), at::kFloat);
  EXPECT_TRUE(ops::choose_largest(scores, 3).equal(at::tensor({0, 1, 2}, at::kLong).view({1, 3})));
}

// With a learned bias a score may be negative; a closed group must not win over it.
TEST(Router, closed_groups_lose_against_negative_scores) {
  const MixtureOfExperts moe{.num_experts = 4,
                             .top_k = 2,
                             .score = RouterScore::kSigmoid,
                             .num_groups = 2,
                             .topk_groups = 1,
                             .selection_bias = true};
  const at::Tensor bias = at::tensor({-1.0, -9.5, -5.0, -5.0}, at::kDouble);
  const ops::Routing routing = ops::route(at::zeros({1, 4}, at::kDouble), bias, moe);
  EXPECT_TRUE(routing.experts.equal(at::tensor({2, 3}, at::kLong).view({1, 2})));
}

const MixtureOfExperts kSparseMixer{
    .num_experts = 5, .top_k = 2, .score = RouterScore::kSparseMixer, .sparse_mixer_epsilon = 0.1};

// (mx - z) / max(|z|, mx) > 0.2 drops the far ones; the second pick starts without the first.
TEST(SparseMixer, picks_by_hand) {
  const at::Tensor logits = at::tensor({1.0, 0.85, 0.5, -2.0, 0.45}, at::kDouble).view({1, 5});
  const ops::Routing routing = ops::route(logits, {}, kSparseMixer);
  EXPECT_TRUE(routing.experts.equal(at::tensor({0, 1}, at::kLong).view({1, 2})));
  EXPECT_NEAR(routing.weights[0][0].item<double>(), 1.0 / (1.0 + std::exp(-0.15)), 1e-12);
  EXPECT_NEAR(routing.weights[0][1].item<double>(), 1.0, 1e-12);  // 0.5 is 0.41 away
}

TEST(SparseMixer, gradient_without_samples) {
  check_gradient({.name = "sparse mixer",
                  .inputs = {normal({9, 5}, 1) * 0.1 + 1.0},
                  .run = [](const Tensors& x, const Parameters&) {
                    return ops::route(x[0], {}, kSparseMixer).weights;
                  }});
}

// Each weight is the softmax over the kept experts, or a third of it where the sample is not the
// best and the coin says so; its gradient is that of the plain softmax in both cases.
TEST(SparseMixer, samples_take_the_estimated_gradient) {
  const int64_t tokens = 4000;
  const at::Tensor row = at::tensor({1.0, 0.95, 0.9, -3.0, 0.97}, at::kDouble);
  const at::Tensor logits = row.expand({tokens, 5}).contiguous().requires_grad_(true);
  const ops::Routing routing = ops::route(logits, {}, kSparseMixer, 77);
  routing.weights.select(1, 0).sum().backward();
  const std::vector<double> p = softmax({1.0, 0.95, 0.9, 0.97});
  const std::vector<double> probability = {p[0], p[1], p[2], 0.0, p[3]};
  std::vector<double> frequency(5, 0.0);
  double thirds = 0, others = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    const auto e = routing.experts[t][0].item<int64_t>();
    ASSERT_NE(e, routing.experts[t][1].item<int64_t>());
    frequency[e] += 1.0 / static_cast<double>(tokens);
    const double weight = routing.weights[t][0].item<double>();
    const bool third = weight < 0.5 * probability[e];
    ASSERT_NEAR(weight, probability[e] * (third ? 1.0 / 3.0 : 1.0), 1e-12);
    if (e == 0) {
      ASSERT_FALSE(third);
    } else {
      others += 1;
      thirds += third;
    }
    for (int64_t j = 0; j < 5; ++j) {
      const double expected = probability[e] * ((j == e) - probability[j]);
      ASSERT_NEAR(logits.grad()[t][j].item<double>(), expected, 1e-12);
    }
  }
  for (int64_t e = 0; e < 5; ++e) EXPECT_NEAR(frequency[e], probability[e], 0.03);
  EXPECT_NEAR(thirds / others, 0.75, 0.03);
}

TEST(SparseMixer, samples_are_functions_of_the_key) {
  const at::Tensor logits = normal({50, 5}, 1) * 0.05 + 1.0;
  const at::Tensor first = ops::route(logits, {}, kSparseMixer, 1).experts;
  EXPECT_TRUE(first.equal(ops::route(logits, {}, kSparseMixer, 1).experts));
  EXPECT_FALSE(first.equal(ops::route(logits, {}, kSparseMixer, 2).experts));
}

// K = exp(logits), d0 and d1 in turn, as the specification has it.
std::vector<double> sinkhorn_by_loops(const at::Tensor& logits, int* rounds) {
  const int64_t tokens = logits.size(0), experts = logits.size(1);
  const double* z = logits.data_ptr<double>();
  std::vector<double> d0(tokens, 1.0), d1(experts, 1.0), result;
  double moved = 1.0;
  for (*rounds = 0; moved > 1e-4; ++*rounds) {
    for (int64_t t = 0; t < tokens; ++t) {
      double sum = 0;
      for (int64_t e = 0; e < experts; ++e) sum += std::exp(z[t * experts + e]) * d1[e];
      d0[t] = 1.0 / (static_cast<double>(tokens) * (sum + 1e-8));
    }
    moved = 0;
    for (int64_t e = 0; e < experts; ++e) {
      double sum = 0;
      for (int64_t t = 0; t < tokens; ++t) sum += std::exp(z[t * experts + e]) * d0[t];
      const double next = 1.0 / (static_cast<double>(experts) * (sum + 1e-8));
      moved += std::abs(next - d1[e]) / static_cast<double>(experts);
      d1[e] = next;
    }
  }
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t e = 0; e < experts; ++e)
      result.push_back(d1[e] * std::exp(z[t * experts + e]) * d0[t]);
  }
  return result;
}

const MixtureOfExperts kSinkhornOne{
    .num_experts = 12, .top_k = 1, .score = RouterScore::kSigmoid, .sinkhorn = true};
const MixtureOfExperts kSinkhornTwo{
    .num_experts = 12, .top_k = 2, .score = RouterScore::kSoftmax, .sinkhorn = true};

// A router that likes the experts 4 and 5.
at::Tensor leaning_logits() {
  at::Tensor logits = normal({33, 12}, 1);
  logits.select(1, 4).add_(3.0);
  logits.select(1, 5).add_(2.0);
  return logits;
}

TEST(Sinkhorn, equals_double_loops) {
  const at::Tensor logits = leaning_logits();
  int rounds = 0;
  const auto expected = sinkhorn_by_loops(logits, &rounds);
  ASSERT_GT(rounds, 3);
  ASSERT_LT(rounds, ops::kSinkhornRounds);
  const at::Tensor balanced = ops::sinkhorn(logits);
  expect_close(balanced.flatten(), at::tensor(expected, at::kDouble), 1e-7);
  expect_close(balanced.sum(0), at::full({12}, 1.0 / 12, at::kDouble), 1e-6);
  expect_close(ops::sinkhorn(logits.to(at::kFloat)), balanced, 1e-5);
  for (const MixtureOfExperts& moe : {kSinkhornOne, kSinkhornTwo}) {
    const ops::Routing routing = ops::route(logits, {}, moe, 7);
    for (int64_t t = 0; t < 33; ++t) {
      const std::vector<double> z = row_of(logits, t), p = softmax(z);
      const auto picks =
          largest({expected.begin() + t * 12, expected.begin() + (t + 1) * 12}, moe.top_k);
      for (int64_t i = 0; i < moe.top_k; ++i) {
        const int64_t e = picks[i];
        ASSERT_EQ(routing.experts[t][i].item<int64_t>(), e);
        ASSERT_NEAR(routing.weights[t][i].item<double>(),
                    moe.top_k == 1 ? 1.0 / (1.0 + std::exp(-z[e])) : p[e], 1e-12);
      }
    }
  }
}

// Training alone is balanced; an evaluation takes the best scores.
TEST(Sinkhorn, evaluation_chooses_by_score) {
  MixtureOfExperts plain = kSinkhornTwo;
  plain.sinkhorn = false;
  const at::Tensor logits = leaning_logits();
  const at::Tensor experts = ops::route(logits, {}, plain).experts;
  EXPECT_TRUE(ops::route(logits, {}, kSinkhornTwo).experts.equal(experts));
  EXPECT_FALSE(ops::route(logits, {}, kSinkhornTwo, 7).experts.equal(experts));
}

TEST(Sinkhorn, gradient_is_that_of_the_weights_alone) {
  for (const MixtureOfExperts& moe : {kSinkhornOne, kSinkhornTwo}) {
    check_gradient({.name = "sinkhorn",
                    .inputs = {leaning_logits()},
                    .run = [&moe](const Tensors& x, const Parameters&) {
                      return ops::route(x[0], {}, moe, 7).weights;
                    }});
  }
}

// The factor of the expert that nobody wants grows until float32 has no step of 1e-4 there: the
// iteration ends nevertheless, also at infinity and without tokens.
TEST(Sinkhorn, ends) {
  at::Tensor logits = normal({64, 8}, 2).to(at::kFloat) * 3.0;
  logits.select(1, 3).sub_(12.0);
  EXPECT_TRUE(at::isfinite(ops::sinkhorn(logits)).all().item<bool>());
  logits[5][5] = static_cast<float>(kInfinity);
  const at::Tensor experts =
      ops::route(logits, {},
                 {.num_experts = 8, .top_k = 2, .score = RouterScore::kSoftmax, .sinkhorn = true},
                 1)
          .experts;
  EXPECT_TRUE(experts.ge(0).logical_and(experts.lt(8)).all().item<bool>());
  EXPECT_EQ(ops::sinkhorn(at::zeros({0, 8}, at::kFloat)).size(0), 0);
}

TEST(Router, jitter_stays_in_its_range_and_scales_the_gradient) {
  const at::Tensor x = at::ones({200, 50}, at::kDouble).requires_grad_(true);
  const at::Tensor y = ops::jitter(x, 0.1, 3);
  EXPECT_GE(y.min().item<double>(), 0.9);
  EXPECT_LE(y.max().item<double>(), 1.1);
  EXPECT_NEAR(y.mean().item<double>(), 1.0, 2e-3);
  EXPECT_NEAR(y.var().item<double>(), 0.01 / 3.0, 2e-4);
  y.sum().backward();
  expect_close(x.grad(), y.detach(), 1e-14);
  EXPECT_FALSE(y.equal(ops::jitter(x, 0.1, 4)));
}

// T = 4, k = 2, capacity 2: expert 0 is chosen by all and keeps its two largest weights, of the
// equal ones the earlier token.
TEST(Capacity, keeps_the_largest_weights) {
  const ops::Routing routing{
      .weights = at::tensor({0.5, 0.5, 0.7, 0.3, 0.5, 0.5, 0.2, 0.8}, at::kDouble).view({4, 2}),
      .experts = at::tensor({0, 1, 0, 1, 0, 7, 0, 2}, at::kLong).view({4, 2}),
      .probabilities = {}};
  const ops::Routing kept = ops::within_capacity(routing, 3, 2);
  EXPECT_TRUE(kept.experts.equal(at::tensor({0, 1, 0, 1, -1, 7, -1, 2}, at::kLong).view({4, 2})));
  EXPECT_TRUE(kept.weights.equal(
      at::tensor({0.5, 0.5, 0.7, 0.3, 0.0, 0.5, 0.0, 0.8}, at::kDouble).view({4, 2})));
  EXPECT_TRUE(ops::within_capacity(routing, 3, 4).experts.equal(routing.experts));
}

// The same choices; the two earliest tokens stay whatever their weights.
TEST(Capacity, keeps_the_earliest_tokens) {
  const ops::Routing routing{
      .weights = at::tensor({0.1, 0.9, 0.7, 0.3, 0.5, 0.5, 0.8, 0.2}, at::kDouble).view({4, 2}),
      .experts = at::tensor({0, 1, 1, 0, 0, 7, 0, 1}, at::kLong).view({4, 2}),
      .probabilities = {}};
  const ops::Routing kept = ops::within_capacity(routing, 3, 2, model::TokenDropPolicy::kPosition);
  EXPECT_TRUE(kept.experts.equal(at::tensor({0, 1, 1, 0, -1, 7, -1, -1}, at::kLong).view({4, 2})));
  EXPECT_TRUE(kept.weights.equal(
      at::tensor({0.1, 0.9, 0.7, 0.3, 0.0, 0.5, 0.0, 0.0}, at::kDouble).view({4, 2})));
}

TEST(Capacity, dropped_choices_get_no_gradient) {
  const at::Tensor weights = at::tensor({0.5, 0.7}, at::kDouble).view({2, 1}).requires_grad_(true);
  const ops::Routing routing{weights, at::zeros({2, 1}, at::kLong), {}};
  ops::within_capacity(routing, 1, 1).weights.sum().backward();
  EXPECT_TRUE(weights.grad().equal(at::tensor({0.0, 1.0}, at::kDouble).view({2, 1})));
}

}  // namespace
}  // namespace qianli::testing
