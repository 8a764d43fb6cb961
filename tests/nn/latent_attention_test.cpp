// Decoding with cached latents (the absorbed form) beside the whole sequence (the explicit form).
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "qianli/model/presets.h"
#include "qianli/nn/decoder.h"
#include "qianli/nn/kv_cache.h"
#include "qianli/optim/flat_optimizer.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

model::ModelSpec tiny(bool indexer) {
  model::ModelSpec spec = model::preset(indexer ? "deepseek-v3.2-671b" : "deepseek-v3-671b");
  spec.num_layers = 2;
  spec.hidden_size = 20;
  spec.ffn_hidden_size = 28;
  spec.num_attention_heads = spec.num_query_groups = 3;
  spec.head_dim = 14;
  spec.vocab_size = 31;
  spec.max_position_embeddings = 128;
  spec.latent_attention = model::LatentAttention{.q_lora_rank = 12,
                                                 .kv_lora_rank = 10,
                                                 .qk_nope_head_dim = 8,
                                                 .qk_rope_head_dim = 6,
                                                 .v_head_dim = 5};
  if (indexer) {
    spec.indexer->num_heads = 16;  // so many that no two scores are 0: equal ones have no order
    spec.indexer->head_dim = 8;
    spec.indexer->top_k = 5;
  }
  spec.moe.reset();
  spec.mtp = {};
  spec.init_std = 0.3;
  return spec;
}

void check(bool indexer) {
  SCOPED_TRACE(indexer ? "with an indexer" : "plain");
  constexpr int64_t kTokens = 24;
  const model::ModelSpec spec = tiny(indexer);
  nn::ParameterSet parameters(spec, at::kDouble, at::kCPU, /*master=*/false);
  parameters.initialize(3);
  nn::Decoder decoder(spec, parameters);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = at::arange(kTokens, at::kLong) * 7 % 31;
  const at::Tensor positions = at::arange(kTokens, at::kLong);
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
}

TEST(LatentAttention, decoding_with_cached_latents_equals_the_whole_sequence) {
  check(/*indexer=*/false);
  check(/*indexer=*/true);
}

// One training pass; with `backward` the gradients of all parameters are in the set afterwards.
double indexer_loss(const model::ModelSpec& spec, nn::ParameterSet& parameters,
                    bool backward = true) {
  constexpr int64_t kTokens = 21;
  nn::Decoder decoder(spec, parameters);
  const at::Tensor tokens = at::arange(kTokens, at::kLong) * 7 % 31;
  const at::Tensor positions =
      at::cat({at::arange(9, at::kLong), at::arange(kTokens - 9, at::kLong)});
  const nn::DecoderInput input{.tokens = tokens,
                               .positions = positions,
                               .max_position = kTokens,
                               .segment_starts = {0, 9, kTokens},
                               .training = true,
                               .auxiliary_loss_scale = 0.5};
  const at::Tensor weights = at::full({kTokens}, 1.0 / kTokens, at::kDouble);
  const at::Tensor loss = decoder.loss(input, {.labels = (tokens + 3) % 31, .weights = weights});
  if (backward) torch::autograd::backward({loss}, {});
  return nn::take_loss(decoder.indexers()).value_or(-1.0);
}

bool of_indexer(const std::string& name) { return name.find("indexer") != std::string::npos; }

TEST(Indexer, learns_from_the_attention_and_changes_nothing_else) {
  model::ModelSpec spec = tiny(/*indexer=*/true);
  nn::ParameterSet parameters(spec, at::kDouble, at::kCPU, /*master=*/true);
  parameters.initialize(3);
  optim::FlatOptimizer optimizer(parameters, {});
  EXPECT_EQ(indexer_loss(spec, parameters), -1.0) << "without a coefficient there is no loss";
  optimizer.finish_gradients();
  std::vector<at::Tensor> without;
  for (size_t i = 0; i < parameters.size(); ++i) without.push_back(parameters.at(i).grad().clone());

  spec.indexer->loss_coeff = 0.7;
  optimizer.reset_gradients();
  EXPECT_GT(indexer_loss(spec, parameters), 0.0);
  optimizer.finish_gradients();
  std::vector<at::Tensor> with;
  for (size_t i = 0; i < parameters.size(); ++i) with.push_back(parameters.at(i).grad().clone());

  const double share = 0.7 * 0.5 * spec.num_layers;  // the loss is a mean over layers
  constexpr double kStep = 1e-6;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters.entry(i).name;
    SCOPED_TRACE(name);
    if (!of_indexer(name)) {
      EXPECT_TRUE(at::equal(with[i], without[i]));
      continue;
    }
    EXPECT_EQ(without[i].abs().max().item<double>(), 0.0);
    const at::Tensor value = parameters.at(i).value().view({-1});
    const at::Tensor gradient = with[i].reshape({-1});
    for (const int64_t at : {int64_t{0}, value.numel() / 2, value.numel() - 1}) {
      const double before = value[at].item<double>();
      const auto loss_at = [&](double x) {
        value[at].fill_(x);
        return indexer_loss(spec, parameters, /*backward=*/false);
      };
      const double slope =
          (loss_at(before + kStep) - loss_at(before - kStep)) / (2 * kStep) * share;
      value[at].fill_(before);
      EXPECT_NEAR(gradient[at].item<double>(), slope, 1e-8 + 1e-6 * std::abs(slope));
    }
  }
}

}  // namespace
}  // namespace qianli::testing
