#include "qianli/nn/mixture_of_experts.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>

#include "qianli/nn/parameter_set.h"
#include "tests/infer/golden.h"
#include "tests/ops/op_harness.h"
#include "tests/support/engine_support.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {
namespace {

using model::GroupScore;
using model::RouterScore;

const std::string kPrefix = "decoder.layers.0.mlp";

model::ModelSpec spec_with(const model::MixtureOfExperts& moe, int64_t hidden_size) {
  model::ModelSpec spec;
  spec.family = "llama";
  spec.num_layers = 1;
  spec.hidden_size = hidden_size;
  spec.ffn_hidden_size = 8;
  spec.num_attention_heads = spec.num_query_groups = 2;
  spec.head_dim = 4;
  spec.vocab_size = 8;
  spec.max_position_embeddings = 64;
  spec.moe = moe;
  return spec;
}

// One block with parameters of its own.
struct Block {
  nn::ParameterSet parameters;
  nn::MixtureOfExperts mixture;

  Block(const model::ModelSpec& spec, at::ScalarType dtype)
      : parameters(spec, dtype, at::kCPU, /*master=*/false),
        mixture(spec, spec.layer(0), parameters, kPrefix) {
    parameters.initialize(3);
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (!parameters.entry(i).buffer) {
        parameters.at(i).attach_grad(at::full_like(parameters.at(i).value(), 1234.5));
      }
    }
  }

  ops::Parameter& at(const std::string& name) { return parameters.at(kPrefix + "." + name); }
};

nn::DecoderInput input_of(const at::Tensor& x, bool training = false) {
  const int64_t tokens = x.size(0);
  return {.tokens = at::zeros({tokens}, at::kLong),
          .positions = at::arange(tokens, at::kLong),
          .max_position = tokens - 1,
          .segment_starts = {0, tokens},
          .training = training,
          .auxiliary_loss_scale = training ? 1.0 : 0.0,
          .random_key = 5};
}

struct Family {
  std::string name;
  model::MixtureOfExperts moe;
  model::Activation activation = model::Activation::kSilu;
  std::optional<double> limit = {};
};

model::MixtureOfExperts experts(model::MixtureOfExperts moe) {
  moe.num_experts = 8;
  moe.ffn_hidden_size = 6;
  return moe;
}

const std::vector<Family> kFamilies = {
    {"mixtral", experts({.top_k = 2, .score = RouterScore::kTopKSoftmax})},
    {"qwen2_moe", experts({.top_k = 3, .shared_ffn_hidden_size = 10, .shared_gate = true})},
    {"qwen3_moe", experts({.top_k = 3, .normalize_top_k = true})},
    {"deepseek_v2", experts({.top_k = 3,
                             .shared_ffn_hidden_size = 12,
                             .scaling_factor = 16.0,
                             .num_groups = 4,
                             .topk_groups = 2,
                             .group_score = GroupScore::kMax})},
    {"deepseek_v3", experts({.top_k = 3,
                             .shared_ffn_hidden_size = 6,
                             .score = RouterScore::kSigmoid,
                             .normalize_top_k = true,
                             .scaling_factor = 2.5,
                             .num_groups = 4,
                             .topk_groups = 2,
                             .selection_bias = true})},
    {"glm4_moe", experts({.top_k = 4,
                          .shared_ffn_hidden_size = 6,
                          .score = RouterScore::kSigmoid,
                          .normalize_top_k = true,
                          .scaling_factor = 1.5,
                          .selection_bias = true})},
    {"gpt_oss",
     experts({.top_k = 4,
              .score = RouterScore::kTopKSoftmax,
              .router_bias = true,
              .expert_bias = true}),
     model::Activation::kClampedSwiglu, 7.0},
    {"phimoe",
     experts({.top_k = 2, .score = RouterScore::kSparseMixer, .sparse_mixer_epsilon = 0.1})},
    {"dbrx", experts({.top_k = 3, .normalize_top_k = true})},
    {"longcat",
     experts({.top_k = 4, .num_zero_experts = 4, .scaling_factor = 6.0, .selection_bias = true})},
};

class GoldenMixture : public ::testing::TestWithParam<Family> {
 protected:
  at::Tensor golden(const std::string& name) const {
    return read_tensor(source_path("tests/golden/moe/" + GetParam().name + ".safetensors"), name);
  }
  model::ModelSpec spec() const {
    model::ModelSpec spec = spec_with(GetParam().moe, 12);
    spec.activation = GetParam().activation;
    if (GetParam().limit) spec.activation_limit = {*GetParam().limit};
    return spec;
  }
  void load(Block& block) const {
    for (size_t i = 0; i < block.parameters.size(); ++i) {
      const std::string& name = block.parameters.entry(i).name;
      if (name.starts_with(kPrefix + ".")) {
        block.parameters.write(i, 0, golden(name.substr(kPrefix.size() + 1)));
      }
    }
  }
};

// Output and every gradient of transformers' block.
TEST_P(GoldenMixture, equals_transformers) {
  for (const auto dtype : {at::kDouble, at::kFloat}) {
    const double value_tolerance = dtype == at::kDouble ? 1e-12 : 1e-5;
    const double gradient_tolerance = dtype == at::kDouble ? 1e-11 : 1e-4;
    Block block(spec(), dtype);
    load(block);
    const at::Tensor x = golden("x").to(dtype).requires_grad_(true);
    const at::Tensor y = block.mixture.forward(x, input_of(x));
    expect_close(y, golden("y"), value_tolerance, "y");
    y.backward(golden("grad_y").to(dtype));
    expect_close(x.grad(), golden("grad.x"), gradient_tolerance, "x");
    for (size_t i = 0; i < block.parameters.size(); ++i) {
      const std::string& name = block.parameters.entry(i).name;
      if (!name.starts_with(kPrefix + ".") || block.parameters.entry(i).buffer) continue;
      expect_close(block.parameters.at(i).grad(), golden("grad." + name.substr(kPrefix.size() + 1)),
                   gradient_tolerance, name);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(MixtureOfExperts, GoldenMixture, ::testing::ValuesIn(kFamilies),
                         [](const auto& info) { return info.param.name; });

// transformers' load balancing loss sums over the choices of a token, ours averages.
TEST(MixtureOfExperts, aux_loss_and_its_gradient_equal_transformers) {
  const auto file = source_path("tests/golden/moe/mixtral.safetensors");
  model::MixtureOfExperts moe = kFamilies[0].moe;
  moe.aux_loss_coeff = 0.5;
  Block block(spec_with(moe, 12), at::kDouble);
  block.parameters.write(block.parameters.index_of(kPrefix + ".router.weight"), 0,
                         read_tensor(file, "router.weight"));
  const at::Tensor x = read_tensor(file, "x");
  nn::DecoderInput input = input_of(x, /*training=*/true);
  input.auxiliary_loss_scale = 2.0;  // 2.0 * 0.5: the plain loss
  (block.mixture.forward(x, input) * 0.0).sum().backward();
  expect_close(block.at("router.weight").grad(), read_tensor(file, "aux_grad.router.weight"),
               1e-12);
  expect_close(block.mixture.statistics().losses.tokens.view({1}), read_tensor(file, "aux_loss"),
               1e-12);
}

double silu(double x) { return x / (1.0 + std::exp(-x)); }

// Every token by itself, every expert by itself; experts without tokens included.
at::Tensor by_loops(Block& block, const at::Tensor& x, const ops::Routing& routing) {
  const at::Tensor fc1 = block.at("experts.linear_fc1.weight").value();
  const at::Tensor fc2 = block.at("experts.linear_fc2.weight").value();
  const int64_t hidden = x.size(1), width = fc2.size(2);
  const auto w1 = fc1.accessor<double, 3>(), w2 = fc2.accessor<double, 3>();
  const auto in = x.accessor<double, 2>();
  at::Tensor y = at::zeros_like(x);
  for (int64_t t = 0; t < x.size(0); ++t) {
    for (int64_t i = 0; i < routing.experts.size(1); ++i) {
      const auto e = routing.experts[t][i].item<int64_t>();
      const double weight = routing.weights[t][i].item<double>();
      if (e < 0) continue;
      for (int64_t m = 0; m < width; ++m) {
        double gate = 0, up = 0;
        for (int64_t h = 0; h < hidden; ++h) {
          gate += w1[e][m][h] * in[t][h];
          up += w1[e][width + m][h] * in[t][h];
        }
        for (int64_t h = 0; h < hidden; ++h) {
          y[t][h] += weight * w2[e][h][m] * silu(gate) * up;
        }
      }
    }
  }
  return y;
}

// A router that sends no token to experts 3 and 7.
void close_two_experts(Block& block) {
  at::Tensor weight = block.at("router.weight").value();
  at::Tensor bias = block.at("router.bias").value();
  weight.mul_(20.0);
  bias.select(0, 3).fill_(-100.0);
  bias.select(0, 7).fill_(-100.0);
}

TEST(MixtureOfExperts, equals_double_loops_with_idle_experts) {
  const auto moe = experts({.top_k = 2, .normalize_top_k = true, .router_bias = true});
  Block block(spec_with(moe, 10), at::kDouble);
  close_two_experts(block);
  const at::Tensor x = normal({11, 10}, 1).requires_grad_(true);
  const at::Tensor y = block.mixture.forward(x, input_of(x));
  const at::Tensor logits =
      ops::router_logits(x.detach(), block.at("router.weight"), &block.at("router.bias"));
  const ops::Routing routing = ops::route(logits.detach(), {}, moe);
  expect_close(y, by_loops(block, x.detach(), routing), 1e-12);
  y.sum().backward();
  for (const int64_t idle : {3, 7}) {
    for (const char* name : {"experts.linear_fc1.weight", "experts.linear_fc2.weight"}) {
      EXPECT_EQ(block.at(name).grad().select(0, idle).abs().max().item<double>(), 0.0) << name;
    }
  }
}

TEST(MixtureOfExperts, gradients_in_float64) {
  const auto moe = experts({.top_k = 3,
                            .shared_ffn_hidden_size = 6,
                            .num_zero_experts = 2,
                            .score = RouterScore::kSigmoid,
                            .normalize_top_k = true,
                            .scaling_factor = 2.5,
                            .router_bias = true,
                            .expert_bias = true});
  const model::ModelSpec spec = spec_with(moe, 10);
  Block block(spec, at::kDouble);
  const at::Tensor x = normal({9, 10}, 1), cotangent = normal({9, 10}, 2);
  const auto inner = [&](const at::Tensor& at) {
    const at::NoGradGuard no_grad;
    return (block.mixture.forward(at, input_of(at)) * cotangent).sum().item<double>();
  };
  const at::Tensor leaf = x.clone().requires_grad_(true);
  block.mixture.forward(leaf, input_of(leaf)).backward(cotangent);
  const double step = 1e-6;
  const auto check = [&](at::Tensor value, const at::Tensor& point, const at::Tensor& grad,
                         const std::string& what) {
    const at::Tensor before = value.clone(),
                     direction = normal({value.numel()}, 7).view(value.sizes());
    value.copy_(before + step * direction);
    const double above = inner(point);
    value.copy_(before - step * direction);
    const double below = inner(point);
    value.copy_(before);
    const double exact = (grad * direction).sum().item<double>();
    EXPECT_NEAR((above - below) / (2 * step), exact, 1e-6 * std::max(1.0, std::abs(exact))) << what;
  };
  at::Tensor moved = x.clone();
  check(moved, moved, leaf.grad(), "x");
  for (const char* name : {"router.weight", "router.bias", "experts.linear_fc1.weight",
                           "experts.linear_fc1.bias", "experts.linear_fc2.weight",
                           "experts.linear_fc2.bias", "shared_experts.linear_fc1.weight"}) {
    check(block.at(name).value(), x, block.at(name).grad(), name);
  }
}

// The gradient of the injected losses is that of the losses' sum: without any other gradient the
// router's weight moves as the differences of the losses say.
TEST(MixtureOfExperts, balancing_losses_reach_the_router_in_training_only) {
  const auto moe = experts({.top_k = 2,
                            .score = RouterScore::kSigmoid,
                            .aux_loss_coeff = 0.3,
                            .sequence_aux_loss_coeff = 0.2,
                            .z_loss_coeff = 0.1});
  Block block(spec_with(moe, 10), at::kDouble);
  const at::Tensor x = normal({9, 10}, 1);
  nn::DecoderInput input = input_of(x, /*training=*/true);
  input.segment_starts = {0, 4, 9};
  input.auxiliary_loss_scale = 0.25;
  (block.mixture.forward(x, input) * 0.0).sum().backward();
  const at::Tensor grad = block.at("router.weight").grad().clone();
  const auto loss = [&] {
    block.mixture.reset_statistics();
    block.mixture.forward(x, input);
    return block.mixture.statistics().losses.weighted_sum(moe).item<double>();
  };
  at::Tensor weight = block.at("router.weight").value();
  const at::Tensor direction = normal({8, 10}, 3), before = weight.clone();
  weight.copy_(before + 1e-6 * direction);
  const double above = loss();
  weight.copy_(before - 1e-6 * direction);
  const double below = loss();
  weight.copy_(before);
  EXPECT_NEAR(0.25 * (above - below) / 2e-6, (grad * direction).sum().item<double>(), 1e-7);

  block.mixture.reset_statistics();
  block.at("router.weight").reset_grad();
  (block.mixture.forward(x, input_of(x)) * 0.0).sum().backward();
  EXPECT_EQ(block.at("router.weight").grad().abs().max().item<double>(), 0.0);
  EXPECT_EQ(block.mixture.statistics().microbatches, 0);
}

class Dropping : public ::testing::TestWithParam<model::TokenDropPolicy> {};

TEST_P(Dropping, with_and_without_padding) {
  auto moe = experts({.top_k = 2, .normalize_top_k = true});
  moe.capacity_factor = 0.5;  // 16 tokens: ceil(0.5 * 2 * 16 / 8) = 2 rows per expert
  moe.token_drop_policy = GetParam();
  Block block(spec_with(moe, 10), at::kDouble);
  block.at("router.weight").value().mul_(20.0);
  const at::Tensor x = normal({16, 10}, 1);
  const at::Tensor logits = ops::router_logits(x, block.at("router.weight")).detach();
  const ops::Routing kept = ops::within_capacity(ops::route(logits, {}, moe), 8, 2, GetParam());
  ASSERT_LT(kept.experts.ge(0).sum().item<int64_t>(), 32);
  const at::Tensor expected = by_loops(block, x, kept);
  std::vector<at::Tensor> gradients;
  for (const bool padded : {false, true}) {
    moe.pad_to_capacity = padded;
    const model::ModelSpec spec = spec_with(moe, 10);
    nn::MixtureOfExperts mixture(spec, spec.layer(0), block.parameters, kPrefix);
    for (size_t i = 0; i < block.parameters.size(); ++i) block.parameters.at(i).reset_grad();
    const at::Tensor y = mixture.forward(x, input_of(x, /*training=*/true));
    expect_close(y, expected, 1e-12);
    y.sum().backward();
    gradients.push_back(block.at("experts.linear_fc1.weight").grad().clone());
  }
  expect_close(gradients[1], gradients[0], 1e-12);  // padding rows have no gradient
}

INSTANTIATE_TEST_SUITE_P(MixtureOfExperts, Dropping,
                         ::testing::Values(model::TokenDropPolicy::kProbs,
                                           model::TokenDropPolicy::kPosition),
                         [](const auto& info) { return to_string(info.param); });

// The experts take float32 whatever the router computes in, and the gradient comes back to both.
TEST(MixtureOfExperts, float64_router_of_a_float32_model) {
  auto moe = experts({.top_k = 2, .normalize_top_k = true});
  moe.num_zero_experts = 2;
  moe.aux_loss_coeff = 0.3;
  std::vector<at::Tensor> values, gradients;
  for (const auto dtype : {model::RouterDtype::kFloat32, model::RouterDtype::kFloat64}) {
    moe.router_dtype = dtype;
    Block block(spec_with(moe, 10), at::kFloat);
    block.at("router.weight").value().mul_(20.0);
    const at::Tensor x = normal({9, 10}, 1).to(at::kFloat).requires_grad_(true);
    const at::Tensor y = block.mixture.forward(x, input_of(x, /*training=*/true));
    EXPECT_EQ(y.scalar_type(), at::kFloat);
    y.sum().backward();
    values.push_back(y.detach());
    gradients.push_back(block.at("router.weight").grad().clone());
  }
  expect_close(values[1], values[0], 1e-5);
  expect_close(gradients[1], gradients[0], 1e-4);
}

TEST(MixtureOfExperts, selection_bias_moves_towards_idle_experts_once_per_step) {
  model::MixtureOfExperts moe{.num_experts = 4,
                              .top_k = 1,
                              .ffn_hidden_size = 6,
                              .score = RouterScore::kSigmoid,
                              .selection_bias = true,
                              .bias_update_rate = 0.01};
  Block block(spec_with(moe, 10), at::kFloat);
  block.mixture.update_selection_bias(at::tensor({5.0, 1.0, 3.0, 3.0}, at::kDouble));
  expect_close(block.at("router.expert_bias").value(), at::tensor({-0.01, 0.01, 0.0, 0.0}), 1e-7);

  const at::Tensor x = normal({6, 10}, 1).to(at::kFloat).requires_grad_(true);
  const nn::DecoderInput input = input_of(x, /*training=*/true);
  for (int microbatch = 0; microbatch < 2; ++microbatch) block.mixture.forward(x, input);
  {
    const at::NoGradGuard no_grad;  // as in recomputation's first pass: not counted
    block.mixture.forward(x, input);
  }
  EXPECT_EQ(block.mixture.statistics().choices.sum().item<double>(), 12.0);
  const at::Tensor choices = block.mixture.statistics().choices.clone();
  const at::Tensor before = block.at("router.expert_bias").value().clone();
  const nn::RoutingSummary summary = nn::finish_routing_step({&block.mixture}).all;
  EXPECT_NEAR(summary.max_load, choices.max().item<double>() / 3.0, 1e-12);
  EXPECT_FALSE(summary.aux_loss.has_value());
  expect_close(block.at("router.expert_bias").value() - before, 0.01 * (3.0 - choices).sign(),
               1e-6);
  EXPECT_EQ(block.mixture.statistics().choices.sum().item<double>(), 0.0);
}

// Of two layers, of which one saw another input: each layer's own means, and those of both.
TEST(MixtureOfExperts, step_routing_of_each_layer) {
  auto moe = experts({.top_k = 2, .aux_loss_coeff = 0.3, .z_loss_coeff = 0.1});
  model::ModelSpec spec = spec_with(moe, 10);
  spec.num_layers = 2;
  nn::ParameterSet parameters(spec, at::kDouble, at::kCPU, /*master=*/false);
  parameters.initialize(3);
  nn::MixtureOfExperts first(spec, spec.layer(0), parameters, kPrefix);
  nn::MixtureOfExperts second(spec, spec.layer(0), parameters, "decoder.layers.1.mlp");
  std::vector<double> aux, z;  // of each forward pass, by the losses' own sums
  const auto run = [&](nn::MixtureOfExperts& mixture, uint64_t seed) {
    const at::Tensor x = normal({9, 10}, seed).requires_grad_(true);
    const auto sum = [](const at::Tensor& value) {
      return value.defined() ? value.item<double>() : 0.0;
    };
    const ops::BalancingLosses before = mixture.statistics().losses;
    mixture.forward(x, input_of(x, /*training=*/true));
    aux.push_back(mixture.statistics().losses.tokens.item<double>() - sum(before.tokens));
    z.push_back(mixture.statistics().losses.z.item<double>() - sum(before.z));
  };
  run(first, 1);
  run(first, 2);
  run(second, 3);
  run(second, 4);
  const double load = second.statistics().choices.max().item<double>() / (36.0 / 8.0);
  const nn::StepRouting step = nn::finish_routing_step({&first, &second});
  ASSERT_EQ(step.layers.size(), 2U);
  EXPECT_EQ(step.layers[1].name, "decoder.layers.1.mlp");
  EXPECT_NEAR(*step.layers[0].summary.aux_loss, (aux[0] + aux[1]) / 2, 1e-12);
  EXPECT_NEAR(*step.layers[1].summary.aux_loss, (aux[2] + aux[3]) / 2, 1e-12);
  EXPECT_NEAR(*step.layers[1].summary.z_loss, (z[2] + z[3]) / 2, 1e-12);
  EXPECT_NEAR(step.layers[1].summary.max_load, load, 1e-12);
  EXPECT_NEAR(*step.all.aux_loss, (aux[0] + aux[1] + aux[2] + aux[3]) / 4, 1e-12);
  EXPECT_GE(step.all.max_load, load);
  EXPECT_FALSE(step.layers[0].summary.sequence_aux_loss.has_value());
}

// Jitter is a function of the microbatch's key, so a forward pass that is made again is the same.
TEST(MixtureOfExperts, jitter_repeats_with_its_key) {
  auto moe = experts({.top_k = 2});
  moe.input_jitter = 0.3;
  Block block(spec_with(moe, 10), at::kDouble);
  const at::Tensor x = normal({9, 10}, 1);
  const at::NoGradGuard no_grad;
  nn::DecoderInput input = input_of(x, /*training=*/true);
  const at::Tensor first = block.mixture.forward(x, input);
  EXPECT_TRUE(first.equal(block.mixture.forward(x, input)));
  input.random_key = 6;
  EXPECT_FALSE(first.equal(block.mixture.forward(x, input)));
  input.training = false;
  EXPECT_TRUE(block.mixture.forward(x, input).equal(block.mixture.forward(x, input_of(x))));
}

TEST(MixtureOfExperts, bfloat16_is_close_to_float32) {
  const auto moe = experts({.top_k = 2, .shared_ffn_hidden_size = 6, .shared_gate = true});
  const model::ModelSpec spec = spec_with(moe, 32);
  Block exact(spec, at::kDouble);
  for (size_t i = 0; i < exact.parameters.size();
       ++i) {  // decided, so that rounding moves no choice
    if (exact.parameters.entry(i).name.ends_with("router.weight")) {
      exact.parameters.at(i).value().mul_(50.0);
    }
    at::Tensor value = exact.parameters.at(i).value();
    value.copy_(value.to(at::kBFloat16).to(at::kDouble));
  }
  Block half(spec, at::kBFloat16);
  half.parameters.flat().copy_(exact.parameters.flat());
  const at::Tensor x = normal({13, 32}, 1).to(at::kBFloat16);
  const at::Tensor y = half.mixture.forward(x, input_of(x));
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  expect_close(y, exact.mixture.forward(x.to(at::kDouble), input_of(x)), 2e-2);
}

}  // namespace
}  // namespace qianli::testing
