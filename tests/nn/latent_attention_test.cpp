// Decoding with cached latents (the absorbed form) beside the whole sequence (the explicit form).
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/model/presets.h"
#include "qianli/nn/decoder.h"
#include "qianli/nn/kv_cache.h"
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

}  // namespace
}  // namespace qianli::testing
