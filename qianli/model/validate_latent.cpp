// Latent attention and the indexers that choose its keys.
#include <cmath>

#include "qianli/model/checks.h"

namespace qianli::model {

void check_latent_attention(const ModelSpec& spec) {
  if (!spec.latent_attention) {
    expect(!spec.indexer || spec.compressed_attention,
           "expected an indexer with latent or compressed attention only");
    return;
  }
  const LatentAttention& mla = *spec.latent_attention;
  if (mla.q_lora_rank) check_count("q_lora_rank", *mla.q_lora_rank);
  check_count("kv_lora_rank", mla.kv_lora_rank);
  check_count("qk_nope_head_dim", mla.qk_nope_head_dim, kMaxHeadDim);
  check_count("qk_rope_head_dim", mla.qk_rope_head_dim, kMaxHeadDim);
  check_count("v_head_dim", mla.v_head_dim, kMaxHeadDim);
  check_positive("q_lora_scale", mla.q_lora_scale);
  check_positive("kv_lora_scale", mla.kv_lora_scale);
  expect(spec.head_dim == mla.qk_nope_head_dim + mla.qk_rope_head_dim,
         fmt::format("expected head_dim of {} (qk_nope_head_dim + qk_rope_head_dim), got {}",
                     mla.qk_nope_head_dim + mla.qk_rope_head_dim, spec.head_dim));
  check_product("num_attention_heads * (qk_nope_head_dim + v_head_dim)", spec.num_attention_heads,
                mla.qk_nope_head_dim + mla.v_head_dim);
  expect(spec.num_query_groups == spec.num_attention_heads,
         "expected as many num_query_groups as num_attention_heads with latent attention");
  expect(spec.qk_norm == QkNorm::kNone && spec.attention_gate == AttentionGate::kNone &&
             !spec.attention_sinks && !spec.qkv_clip && spec.key_value_share_factor == 1,
         "expected latent attention without qk_norm, gates, sinks, clipping and shared keys");
  expect(spec.position == PositionKind::kRotary, "expected rotary positions with latent attention");
  if (!spec.indexer) return;
  expect(mla.q_lora_rank.has_value(), "expected q_lora_rank with an indexer, got none");
  check_count("indexer.num_heads", spec.indexer->num_heads);
  check_count("indexer.head_dim", spec.indexer->head_dim, kMaxHeadDim);
  check_count("indexer.top_k", spec.indexer->top_k);
  check_count("indexer.frequency", spec.indexer->frequency, kMaxLayers);
  check_count("indexer.skip", spec.indexer->skip, kMaxLayers, 0);
  check_not_negative("indexer.loss_coeff", spec.indexer->loss_coeff);
  check_product("indexer.num_heads * indexer.head_dim", spec.indexer->num_heads,
                spec.indexer->head_dim);
  expect(spec.indexer->head_dim >= mla.qk_rope_head_dim,
         fmt::format("expected indexer.head_dim of at least qk_rope_head_dim ({}), got {}",
                     mla.qk_rope_head_dim, spec.indexer->head_dim));
  expect(spec.layer(0).owns_indexer, "expected the first layer to own an indexer");
}

}  // namespace qianli::model
