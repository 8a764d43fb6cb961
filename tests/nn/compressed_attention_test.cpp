// Attention to a window and to compressed keys, a residual stream of several rows, and experts by
// token, as DeepSeek-V4 has them.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "qianli/base/error.h"
#include "qianli/model/presets.h"
#include "qianli/nn/decoder.h"
#include "qianli/nn/kv_cache.h"
#include "qianli/optim/flat_optimizer.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

using Kind = model::MixerKind;

// Windows of compressed keys that do not fall on those of attention; a window that is not in both.
model::ModelSpec tiny() {
  model::ModelSpec spec = model::preset("deepseek-v4-flash-284b");
  spec.num_layers = 4;
  spec.hidden_size = 20;
  spec.ffn_hidden_size = 12;
  spec.num_attention_heads = 6;
  spec.head_dim = 10;
  spec.vocab_size = 31;
  spec.max_position_embeddings = 128;
  spec.layer_pattern = {Kind::kSlidingAttention, Kind::kSparseCompressed, Kind::kHeavyCompressed,
                        Kind::kSparseCompressed};
  spec.sliding_window = 4;
  spec.compressed_attention = model::CompressedAttention{.q_lora_rank = 12,
                                                         .output_groups = 3,
                                                         .output_lora_rank = 5,
                                                         .sparse_ratio = 3,
                                                         .heavy_ratio = 7};
  // So many heads that no two scores are 0: equal ones have no order.
  spec.indexer = model::Indexer{.num_heads = 16, .head_dim = 6, .top_k = 3};
  spec.rope = {.base = 300.0, .fraction = 0.4, .interleaved = true};
  spec.sliding_rope = model::Rope{.base = 50.0, .fraction = 0.4, .interleaved = true};
  spec.hyper_connections = model::HyperConnections{.streams = 3, .sinkhorn_iterations = 4};
  spec.activation_limit = {0.3};
  spec.moe->num_experts = 5;
  spec.moe->top_k = 2;
  spec.moe->ffn_hidden_size = spec.moe->shared_ffn_hidden_size = 12;
  spec.moe->num_hash_layers = 2;
  spec.init_std = 0.3;
  return spec;
}

at::Tensor tokens_of(int64_t count) { return at::arange(count, at::kLong) * 7 % 31; }

struct Model {
  explicit Model(const model::ModelSpec& given)
      : spec(given),
        parameters(spec, at::kDouble, at::kCPU, /*master=*/false),
        decoder((parameters.initialize(3), spec), parameters) {}

  at::Tensor output(const at::Tensor& tokens, std::vector<int64_t> starts) {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> positions;
    for (size_t s = 0; s + 1 < starts.size(); ++s)
      positions.push_back(at::arange(starts[s + 1] - starts[s], at::kLong));
    return decoder.forward({.tokens = tokens,
                            .positions = at::cat(positions),
                            .max_position = tokens.size(0) - 1,
                            .segment_starts = std::move(starts)});
  }

  model::ModelSpec spec;
  nn::ParameterSet parameters;
  nn::Decoder decoder;
};

at::Tensor decoded(Model& model, const at::Tensor& tokens, nn::KvCache& cache,
                   const std::vector<int64_t>& counts) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> parts;
  for (int64_t first = cache.length(); const int64_t count : counts) {
    parts.push_back(model.decoder.forward({.tokens = tokens.narrow(0, first, count),
                                           .positions = at::arange(first, first + count, at::kLong),
                                           .max_position = first + count - 1,
                                           .segment_starts = {0, count},
                                           .cache = &cache}));
    first += count;
  }
  return at::cat(parts, 0);
}

TEST(CompressedAttention, decoding_with_a_cache_equals_the_whole_sequence) {
  constexpr int64_t kTokens = 30;
  Model model(tiny());
  const at::Tensor tokens = tokens_of(kTokens), whole = model.output(tokens, {0, kTokens});
  // In steps within a window, on its end, over several, and one token at a time.
  for (const std::vector<int64_t>& counts :
       {std::vector<int64_t>{9, 1, 3, 1, 10, 6}, std::vector<int64_t>{2, 1, 4, 7, 1, 15},
        std::vector<int64_t>(kTokens, 1)}) {
    nn::KvCache cache(model.spec, kTokens, at::kDouble, at::kCPU);
    expect_close(decoded(model, tokens, cache, counts), whole, 1e-12);
    EXPECT_THROW(decoded(model, tokens_of(kTokens + 1), cache, {1}), MemoryError);
    // What is compressed cannot be taken apart: nothing stays, and it starts anew.
    EXPECT_EQ(cache.truncate(kTokens), kTokens);
    EXPECT_EQ(cache.truncate(kTokens - 1), 0);
    expect_close(decoded(model, tokens, cache, {kTokens}), whole, 1e-12);
  }
}

// In one pass, each from its own place on, and with a copy that goes on by itself.
TEST(CompressedAttention, several_sequences_decode_together) {
  constexpr int64_t kTokens = 24;
  Model model(tiny());
  const at::Tensor a = tokens_of(kTokens), b = (tokens_of(kTokens) + 5) % 31;
  const at::Tensor whole_a = model.output(a, {0, kTokens}), whole_b = model.output(b, {0, kTokens});
  nn::KvCache cache(model.spec, nn::CacheSizes{.blocks = 3, .block_size = 32, .slots = 3},
                    at::kDouble, at::kCPU);
  nn::CachedSequence first{.blocks = {0}, .slot = 2}, second{.blocks = {1}, .slot = 0};
  const at::NoGradGuard no_grad;
  const auto pass = [&](std::vector<nn::CachedSequence*> sequences,
                        const std::vector<at::Tensor>& all, const std::vector<int64_t>& counts) {
    std::vector<at::Tensor> tokens, positions;
    std::vector<int64_t> starts{0};
    for (size_t s = 0; s < sequences.size(); ++s) {
      const int64_t from = sequences[s]->length;
      tokens.push_back(all[s].narrow(0, from, counts[s]));
      positions.push_back(at::arange(from, from + counts[s], at::kLong));
      starts.push_back(starts.back() + counts[s]);
    }
    cache.begin(std::move(sequences));
    return model.decoder.forward({.tokens = at::cat(tokens),
                                  .positions = at::cat(positions),
                                  .max_position = kTokens - 1,
                                  .segment_starts = starts,
                                  .cache = &cache});
  };
  expect_close(pass({&first}, {a}, {11}), whole_a.narrow(0, 0, 11), 1e-12);
  const at::Tensor both = pass({&second, &first}, {b, a}, {8, 1});
  expect_close(both.narrow(0, 0, 8), whole_b.narrow(0, 0, 8), 1e-12);
  expect_close(both.narrow(0, 8, 1), whole_a.narrow(0, 11, 1), 1e-12);
  cache.copy_slot(first.slot, 1);
  nn::CachedSequence third{.blocks = {2}, .slot = 1, .length = first.length};
  const at::Tensor three = pass({&first, &second, &third}, {a, b, a}, {12, 3, 5});
  expect_close(three.narrow(0, 0, 12), whole_a.narrow(0, 12, 12), 1e-12);
  expect_close(three.narrow(0, 12, 3), whole_b.narrow(0, 8, 3), 1e-12);
  expect_close(three.narrow(0, 15, 5), whole_a.narrow(0, 12, 5), 1e-12);
  cache.reset_slot(second.slot);
  second.length = 0;
  expect_close(pass({&second}, {a}, {kTokens}), whole_a, 1e-12);
}

TEST(CompressedAttention, keeps_little_of_a_token) {
  const model::ModelSpec spec = tiny();
  // Two layers with a key and an indexer's for each 3 tokens, one with a key for each 7.
  EXPECT_EQ(nn::KvCache::elements_per_token(spec), 2 * ((10 + 6 + 2) / 3) + (10 + 6) / 7);
  const int64_t sparse = 2 * 2 * 3 * 2 * (10 + 6), heavy = 2 * 7 * 10;
  EXPECT_EQ(nn::KvCache::fixed_bytes(spec, at::kDouble), 8 * (4 * 4 * 10 + 2 * sparse + heavy));
}

TEST(CompressedAttention, packed_sequences_do_not_see_each_other) {
  constexpr int64_t kTokens = 41;
  Model model(tiny());
  const at::Tensor tokens = tokens_of(kTokens);
  const std::vector<int64_t> starts{0, 2, 13, 25, kTokens};
  const at::Tensor packed = model.output(tokens, starts);
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    const int64_t count = starts[s + 1] - starts[s];
    const at::Tensor alone = model.output(tokens.narrow(0, starts[s], count), {0, count});
    expect_close(packed.narrow(0, starts[s], count), alone, 1e-12);
  }
}

TEST(CompressedAttention, every_switch_is_felt) {
  const auto output = [](const std::function<void(model::ModelSpec&)>& change) {
    model::ModelSpec spec = tiny();
    change(spec);
    return Model(spec).output(tokens_of(30), {0, 30});
  };
  const at::Tensor as_it_is = output([](model::ModelSpec&) {});
  const std::vector<std::function<void(model::ModelSpec&)>> changes{
      [](model::ModelSpec& s) { s.sliding_rope.reset(); },
      [](model::ModelSpec& s) { s.rope.base = 200.0; },
      [](model::ModelSpec& s) { s.rope.fraction = s.sliding_rope->fraction = 0.6; },
      [](model::ModelSpec& s) { s.sliding_window = 5; },
      [](model::ModelSpec& s) { s.indexer->top_k = 4; },
      [](model::ModelSpec& s) { s.hyper_connections->sinkhorn_iterations = 1; },
      [](model::ModelSpec& s) { s.hyper_connections->eps = 1e-2; },
      [](model::ModelSpec& s) { s.activation_limit = {0.4}; },
      [](model::ModelSpec& s) { s.limit_before_activation = false; },
      [](model::ModelSpec& s) { s.moe->scaling_factor = 1.0; },
      [](model::ModelSpec& s) { s.moe->score = model::RouterScore::kSigmoid; }};
  for (size_t i = 0; i < changes.size(); ++i) {
    EXPECT_GT(relative_error(output(changes[i]), as_it_is), 1e-4) << i;
  }
}

// The experts of the first layers follow from the token alone.
TEST(CompressedAttention, first_layers_take_the_experts_of_the_table) {
  Model model(tiny());
  const at::Tensor tokens = tokens_of(30);
  for (const char* layer : {"decoder.layers.0.mlp", "decoder.layers.1.mlp"}) {
    const at::Tensor table =
        model.parameters.at(std::string(layer) + ".router.token_experts").value();
    EXPECT_EQ(table.sizes(), (at::IntArrayRef{31, 2}));
    EXPECT_TRUE(table.ge(0).logical_and(table.lt(5)).all().item<bool>());
    EXPECT_TRUE(table.select(1, 0).ne(table.select(1, 1)).all().item<bool>());
    EXPECT_EQ(model.parameters.find(std::string(layer) + ".router.expert_bias"), nullptr);
  }
  EXPECT_EQ(model.parameters.find("decoder.layers.2.mlp.router.token_experts"), nullptr);
  const at::Tensor before = model.output(tokens, {0, 30});
  at::Tensor table = model.parameters.at("decoder.layers.0.mlp.router.token_experts").value();
  const int64_t token = tokens[29].item<int64_t>();  // no other position has it
  table[token].copy_((table[token] + 1).remainder(5));
  const at::Tensor after = model.output(tokens, {0, 30});
  expect_close(after.narrow(0, 0, 29), before.narrow(0, 0, 29), 1e-13);
  EXPECT_GT(relative_error(after[29], before[29]), 1e-4);
}

// All gradients but those of indexers and tables, which no gradient reaches, against differences.
TEST(CompressedAttention, gradients_are_slopes_of_the_loss_and_following_them_lowers_it) {
  constexpr int64_t kTokens = 26;
  model::ModelSpec spec = tiny();
  spec.num_layers = 3;
  spec.moe->aux_loss_coeff = 0;
  spec.moe->top_k = spec.moe->num_experts;  // a choice that jumps has no slope
  spec.indexer->top_k = kTokens;
  nn::ParameterSet parameters(spec, at::kDouble, at::kCPU, /*master=*/true);
  parameters.initialize(3);
  optim::FlatOptimizer optimizer(parameters, {});
  nn::Decoder decoder(spec, parameters);
  const nn::DecoderInput input{
      .tokens = tokens_of(kTokens),
      .positions = at::cat({at::arange(9, at::kLong), at::arange(kTokens - 9, at::kLong)}),
      .max_position = kTokens,
      .segment_starts = {0, 9, kTokens},
      .training = true};
  const nn::Targets targets{.labels = (input.tokens + 3) % 31,
                            .weights = at::full({kTokens}, 1.0 / kTokens, at::kDouble)};
  const auto loss = [&](bool backward) {
    const at::AutoGradMode recorded(backward);
    const at::Tensor value = decoder.loss(input, targets);
    if (backward) torch::autograd::backward({value}, {});
    return value.item<double>();
  };
  const double first = loss(true);
  optimizer.finish_gradients();
  constexpr double kStep = 1e-6;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters.entry(i).name;
    if (parameters.entry(i).buffer) continue;
    SCOPED_TRACE(name);
    const at::Tensor value = parameters.at(i).value().view({-1});
    const at::Tensor gradient = parameters.at(i).grad().reshape({-1}).clone();
    const bool unreached = name.find("indexer") != std::string::npos;
    EXPECT_EQ(gradient.abs().max().item<double>() == 0.0, unreached);
    const int64_t at = value.numel() / 2;
    const double before = value[at].item<double>();
    const auto loss_at = [&](double x) {
      value[at].fill_(x);
      return loss(false);
    };
    const double slope = (loss_at(before + kStep) - loss_at(before - kStep)) / (2 * kStep);
    value[at].fill_(before);
    EXPECT_NEAR(gradient[at].item<double>(), slope, 2e-8 + 1e-5 * std::abs(slope));
  }
  for (int step = 0; step < 8; ++step) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (parameters.entry(i).buffer) continue;
      parameters.at(i).value().sub_(parameters.at(i).grad(), 0.02);
    }
    optimizer.reset_gradients();
    loss(true);
    optimizer.finish_gradients();
  }
  EXPECT_LT(loss(false), 0.9 * first);
}

}  // namespace
}  // namespace qianli::testing
