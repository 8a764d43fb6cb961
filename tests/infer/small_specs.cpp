#include "tests/infer/small_specs.h"

#include <algorithm>

#include "qianli/model/checks.h"
#include "qianli/model/presets.h"

namespace qianli::testing {
namespace {

using Kind = model::MixerKind;

model::ModelSpec dense() {
  model::ModelSpec spec;
  spec.family = "llama";
  spec.num_layers = 3;
  spec.hidden_size = 24;
  spec.ffn_hidden_size = 40;
  spec.num_attention_heads = 6;
  spec.num_query_groups = 2;
  spec.head_dim = 8;
  spec.vocab_size = 61;
  spec.max_position_embeddings = 256;
  spec.init_std = 0.4;
  return spec;
}

model::ModelSpec windowed(std::vector<Kind> pattern) {
  model::ModelSpec spec = dense();
  spec.layer_pattern = std::move(pattern);
  spec.sliding_window = 11;
  return spec;
}

model::ModelSpec latent(bool indexer) {
  model::ModelSpec spec = model::preset(indexer ? "deepseek-v3.2-671b" : "deepseek-v3-671b");
  spec.num_layers = 2;
  spec.hidden_size = 20;
  spec.ffn_hidden_size = 24;
  spec.num_attention_heads = spec.num_query_groups = 4;
  spec.head_dim = 14;
  spec.vocab_size = 61;
  spec.max_position_embeddings = 256;
  spec.rope = {.base = 10000.0};
  spec.latent_attention = model::LatentAttention{.q_lora_rank = 12,
                                                 .kv_lora_rank = 10,
                                                 .qk_nope_head_dim = 8,
                                                 .qk_rope_head_dim = 6,
                                                 .v_head_dim = 5};
  if (indexer) {
    spec.indexer->num_heads = 16;
    spec.indexer->head_dim = 8;
    spec.indexer->top_k = 9;
  }
  spec.moe.reset();
  spec.mtp = {};
  spec.init_std = 0.4;
  return spec;
}

model::ModelSpec mixture() {
  model::ModelSpec spec = dense();
  spec.moe.emplace();
  spec.moe->num_experts = 6;
  spec.moe->top_k = 2;
  spec.moe->ffn_hidden_size = 16;
  return spec;
}

model::ModelSpec recurrent(std::vector<Kind> pattern) {
  model::ModelSpec spec = dense();
  spec.layer_pattern = std::move(pattern);
  if (std::ranges::find(spec.layer_pattern, Kind::kGatedDeltaNet) != spec.layer_pattern.end())
    spec.gated_delta_net = model::GatedDeltaNet{
        .num_key_heads = 2, .num_value_heads = 4, .key_head_dim = 8, .value_head_dim = 6};
  spec.mamba2 = model::Mamba2{.state_size = 12, .head_dim = 12, .inner_size = 48};
  if (!model::uses_attention(spec))
    spec.num_attention_heads = spec.num_query_groups = spec.head_dim = 0;
  return spec;
}

}  // namespace

std::map<std::string, model::ModelSpec> small_specs() {
  return {{"dense", dense()},
          {"window", windowed({Kind::kSlidingAttention})},
          {"some_windows", windowed({Kind::kSlidingAttention, Kind::kAttention})},
          {"latent", latent(false)},
          {"indexer", latent(true)},
          {"mixture", mixture()},
          {"mamba2", recurrent({Kind::kMamba2})},
          {"hybrid", recurrent({Kind::kGatedDeltaNet, Kind::kAttention, Kind::kMamba2})}};
}

}  // namespace qianli::testing
