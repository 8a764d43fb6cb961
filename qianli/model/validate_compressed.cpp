// Attention to compressed keys, and residual streams of several rows.
#include "qianli/model/checks.h"

namespace qianli::model {
namespace {

void check_indexer(const ModelSpec& spec) {
  expect(spec.indexer.has_value() == uses(spec, MixerKind::kSparseCompressed),
         "expected the sizes of an indexer exactly where layers are sparse_compressed");
  if (!spec.indexer) return;
  const Indexer& indexer = *spec.indexer;
  check_count("indexer.num_heads", indexer.num_heads);
  check_count("indexer.head_dim", indexer.head_dim, kMaxHeadDim);
  check_count("indexer.top_k", indexer.top_k);
  check_product("indexer.num_heads * indexer.head_dim", indexer.num_heads, indexer.head_dim);
  expect(indexer.frequency == 1 && indexer.skip == 0,
         "expected indexer.frequency of 1 and indexer.skip of 0 with compressed attention");
  expect(indexer.loss_coeff == 0,
         "expected indexer.loss_coeff of 0 with compressed attention, whose indexers do not learn");
  if (!(spec.rope.fraction > 0 && spec.rope.fraction <= 1)) return;  // refused by check_positions
  expect(indexer.head_dim >= spec.rotary_size(spec.rope),
         fmt::format("expected indexer.head_dim of at least the rotated dimensions ({}), got {}",
                     spec.rotary_size(spec.rope), indexer.head_dim));
}

}  // namespace

void check_compressed_attention(const ModelSpec& spec) {
  if (!spec.compressed_attention) {
    expect(!uses_compressed_keys(spec),
           "expected the sizes of compressed_attention where layers have compressed keys");
    return;
  }
  const CompressedAttention& sizes = *spec.compressed_attention;
  check_count("compressed_attention.q_lora_rank", sizes.q_lora_rank);
  check_count("compressed_attention.output_groups", sizes.output_groups);
  check_count("compressed_attention.output_lora_rank", sizes.output_lora_rank);
  check_count("compressed_attention.sparse_ratio", sizes.sparse_ratio, kMaxHeadDim);
  check_count("compressed_attention.heavy_ratio", sizes.heavy_ratio, kMaxHeadDim);
  check_multiple("num_attention_heads", spec.num_attention_heads,
                 "compressed_attention.output_groups", sizes.output_groups);
  check_product("compressed_attention.output_groups * output_lora_rank", sizes.output_groups,
                sizes.output_lora_rank);
  expect(spec.num_query_groups == 1,
         fmt::format("expected num_query_groups of 1 with compressed attention, got {}",
                     spec.num_query_groups));
  expect(spec.sliding_window.has_value(), "expected sliding_window with compressed attention");
  expect(!uses(spec, MixerKind::kAttention),
         "expected layers of sliding, sparse_compressed and heavy_compressed attention alone");
  expect(spec.position == PositionKind::kRotary,
         "expected rotary positions with compressed attention");
  expect(spec.attention_sinks, "expected attention_sinks with compressed attention");
  expect(
      !spec.latent_attention && spec.qk_norm == QkNorm::kNone &&
          spec.attention_gate == AttentionGate::kNone && !spec.qkv_clip && !spec.qkv_bias &&
          !spec.attention_out_bias && spec.key_value_share_factor == 1 && !spec.attention_softcap &&
          !spec.query_pre_attn_scalar && !spec.sliding_num_attention_heads &&
          !spec.sliding_num_query_groups,
      "expected compressed attention without latent attention, qk_norm, gates, biases, clipping, "
      "softcap, another scale, shared keys and heads of sliding layers");
  check_indexer(spec);
}

void check_hyper_connections(const ModelSpec& spec) {
  if (!spec.hyper_connections) return;
  const HyperConnections& hyper = *spec.hyper_connections;
  check_count("hyper_connections.streams", hyper.streams, 64);
  check_count("hyper_connections.sinkhorn_iterations", hyper.sinkhorn_iterations, 1000);
  check_not_negative("hyper_connections.eps", hyper.eps);
  check_product("hyper_connections.streams * hidden_size", hyper.streams, spec.hidden_size);
  expect(spec.norm_placement == NormPlacement::kPre && spec.residual_multiplier == 1.0 &&
             !(spec.moe && spec.moe->shortcut),
         "expected hyper_connections with norms before the branches, residual_multiplier of 1 and "
         "no moe.shortcut");
}

}  // namespace qianli::model
