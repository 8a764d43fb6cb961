// Layers that differ in heads, windows, rotary positions and limits of their activation, in one
// stack.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <gtest/gtest.h>

#include <functional>

#include "qianli/model/presets.h"
#include "qianli/nn/decoder.h"
#include "qianli/nn/kv_cache.h"
#include "qianli/nn/mixture_of_experts.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

using Kind = model::MixerKind;

model::ModelSpec tiny() {
  model::ModelSpec spec = model::preset("step3.5-flash-196b");
  spec.num_layers = 6;
  spec.hidden_size = 20;
  spec.ffn_hidden_size = 28;
  spec.num_attention_heads = 4;
  spec.num_query_groups = 2;
  spec.head_dim = 8;
  spec.vocab_size = 31;
  spec.max_position_embeddings = 128;
  spec.layer_pattern = {Kind::kAttention, Kind::kSlidingAttention, Kind::kSlidingAttention};
  spec.sliding_window = 5;
  spec.sliding_num_attention_heads = 9;
  spec.sliding_num_query_groups = 3;
  spec.rope = {.base = 300.0, .fraction = 0.5};
  spec.sliding_rope = model::Rope{.base = 50.0};
  spec.rotary_pattern = {true, true, true, false};
  spec.activation_limit = {0.2, 0.0};
  spec.moe->num_experts = 4;
  spec.moe->top_k = 2;
  spec.moe->ffn_hidden_size = 12;
  spec.moe->shared_ffn_hidden_size = 10;
  spec.moe->first_k_dense = 2;
  spec.moe->activation_limit = {0.0, 0.0, 0.1};
  spec.init_std = 0.3;
  return spec;
}

at::Tensor tokens_of(int64_t count) { return at::arange(count, at::kLong) * 7 % 31; }

TEST(LayerPatterns, decoding_with_a_cache_equals_the_whole_sequence) {
  constexpr int64_t kTokens = 24;
  const model::ModelSpec spec = tiny();
  nn::ParameterSet parameters(spec, at::kDouble, at::kCPU, /*master=*/false);
  parameters.initialize(3);
  nn::Decoder decoder(spec, parameters);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = tokens_of(kTokens), positions = at::arange(kTokens, at::kLong);
  const at::Tensor whole = decoder.forward({.tokens = tokens,
                                            .positions = positions,
                                            .max_position = kTokens - 1,
                                            .segment_starts = {0, kTokens}});
  nn::KvCache cache(spec, kTokens, at::kDouble, at::kCPU);
  std::vector<at::Tensor> parts;
  for (int64_t first = 0; const int64_t count : {9, 1, 3, 1, 10}) {
    parts.push_back(decoder.forward({.tokens = tokens.narrow(0, first, count),
                                     .positions = positions.narrow(0, first, count),
                                     .max_position = first + count - 1,
                                     .segment_starts = {0, count},
                                     .cache = &cache}));
    first += count;
  }
  expect_close(at::cat(parts, 0), whole, 1e-12);
  // Two layers see everything with 2 heads of keys, four the window with 3: two lists of 8 each.
  EXPECT_EQ(nn::KvCache::elements_per_token(spec), 2 * 8 * (2 * 2 + 4 * 3));
}

TEST(LayerPatterns, every_difference_between_layers_is_felt) {
  const auto output = [](const std::function<void(model::ModelSpec&)>& change) {
    model::ModelSpec spec = tiny();
    change(spec);
    nn::ParameterSet parameters(spec, at::kDouble, at::kCPU, /*master=*/false);
    parameters.initialize(3);
    nn::Decoder decoder(spec, parameters);
    const at::NoGradGuard no_grad;
    return decoder.forward({.tokens = tokens_of(24),
                            .positions = at::arange(24, at::kLong),
                            .max_position = 23,
                            .segment_starts = {0, 24}});
  };
  const at::Tensor as_it_is = output([](model::ModelSpec&) {});
  const std::vector<std::function<void(model::ModelSpec&)>> changes{
      [](model::ModelSpec& s) { s.sliding_rope.reset(); },
      [](model::ModelSpec& s) { s.rope.fraction = 1.0; },
      [](model::ModelSpec& s) { s.rotary_pattern.clear(); },
      [](model::ModelSpec& s) { s.sliding_window = 6; },
      [](model::ModelSpec& s) {
        s.activation_limit = {0.0, 0.2};
      },
      [](model::ModelSpec& s) { s.moe->activation_limit = {0.0}; },
      [](model::ModelSpec& s) { s.moe->activation_limit.clear(); }};
  for (size_t i = 0; i < changes.size(); ++i) {
    EXPECT_GT(relative_error(output(changes[i]), as_it_is), 1e-4) << i;
  }
}

// y = R(limit of the routed experts) + S(limit of the shared ones).
TEST(LayerPatterns, shared_experts_have_a_limit_of_their_own) {
  constexpr double kLimit = 0.05;
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::randn({16, 20}, at::kDouble);
  const auto output = [&](double routed, double shared, bool shared_alone) {
    model::ModelSpec spec = tiny();
    spec.activation_limit = {shared};
    spec.moe->activation_limit = {routed};
    nn::ParameterSet parameters(spec, at::kDouble, at::kCPU, /*master=*/false);
    parameters.initialize(3);
    const std::string name = "decoder.layers.2.mlp";
    if (shared_alone) parameters.at(name + ".experts.linear_fc2.weight").value().zero_();
    nn::MixtureOfExperts mixture(spec, spec.layer(2), parameters, name);
    const at::Tensor y = mixture.forward(x, {.segment_starts = {0, 16}});
    if (!shared_alone) return y;
    const auto value = [&](const char* end) {
      return parameters.at(name + ".shared_experts.linear_fc" + end + ".weight").value();
    };
    const auto wide = at::linear(x, value("1")).chunk(2, 1);
    const at::Tensor gate = at::silu(wide[0]).clamp_max(kLimit);
    const at::Tensor up = wide[1].clamp(-kLimit, kLimit);
    expect_close(y, at::linear(gate * up, value("2")), 1e-12);
    return y;
  };
  output(0, kLimit, /*shared_alone=*/true);
  const at::Tensor none = output(0, 0, false), routed = output(kLimit, 0, false);
  const at::Tensor shared = output(0, kLimit, false), both = output(kLimit, kLimit, false);
  EXPECT_GT(relative_error(routed, none), 1e-3);
  EXPECT_GT(relative_error(shared, none), 1e-3);
  expect_close(both - routed, shared - none, 1e-11);
}

}  // namespace
}  // namespace qianli::testing
