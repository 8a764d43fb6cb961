#include "qianli/model/families/latent.h"

#include <algorithm>

namespace qianli::model {

std::vector<Key> latent_keys(std::vector<Key> keys, const LatentDefaults& defaults) {
  const Fallback rank = defaults.q_lora_rank ? Fallback(*defaults.q_lora_rank) : Fallback(nullptr);
  return with_keys(without_key(std::move(keys), "head_dim"),
                   {{"q_lora_rank", "latent_attention.q_lora_rank", rank},
                    {"kv_lora_rank", "latent_attention.kv_lora_rank", defaults.kv_lora_rank},
                    {"qk_nope_head_dim", "latent_attention.qk_nope_head_dim", defaults.nope},
                    {"qk_rope_head_dim", "latent_attention.qk_rope_head_dim", defaults.rope},
                    {"v_head_dim", "latent_attention.v_head_dim", defaults.v_head_dim,
                     Fallback(hidden_by_heads)}});
}

void read_latent_heads(const ConfigReader& config, ModelSpec& spec) {
  const LatentAttention& mla = *spec.latent_attention;
  // Sizes beyond the limit are refused all the same, without overflowing.
  const int64_t limit = INT32_MAX;
  spec.head_dim = std::clamp<int64_t>(mla.qk_nope_head_dim, 0, limit) +
                  std::clamp<int64_t>(mla.qk_rope_head_dim, 0, limit);
  config.raw("head_dim");
  config.raw("qk_head_dim");
}

void name_latent(ForeignNames& names) {
  names.qkv.clear();
  names.latent = {.query = "self_attn.q_proj",
                  .query_down = "self_attn.q_a_proj",
                  .query_norm = "self_attn.q_a_layernorm",
                  .query_up = "self_attn.q_b_proj",
                  .key_value_down = "self_attn.kv_a_proj_with_mqa",
                  .key_value_norm = "self_attn.kv_a_layernorm",
                  .key_value_up = "self_attn.kv_b_proj"};
  names.indexer = {.query = "self_attn.indexer.wq_b",
                   .key = "self_attn.indexer.wk",
                   .key_norm = "self_attn.indexer.k_norm",
                   .weights = "self_attn.indexer.weights_proj"};
}

}  // namespace qianli::model
