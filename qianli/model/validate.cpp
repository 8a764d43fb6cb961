// What every model must satisfy before anything multiplies its sizes.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "qianli/model/checks.h"
#include "qianli/model/family.h"

namespace qianli::model {
namespace {

void check_sliding_heads(const ModelSpec& spec) {
  if (!spec.sliding_num_attention_heads && !spec.sliding_num_query_groups) return;
  expect(spec.sliding_window.has_value() && !spec.latent_attention &&
             spec.key_value_share_factor == 1 && spec.position != PositionKind::kAlibi,
         "expected heads of their own in sliding attention layers alone, without latent attention, "
         "shared keys and alibi positions");
  const int64_t heads = spec.sliding_num_attention_heads.value_or(spec.num_attention_heads);
  const int64_t groups = spec.sliding_num_query_groups.value_or(spec.num_query_groups);
  check_count("sliding_num_attention_heads", heads);
  check_count("sliding_num_query_groups", groups, heads);
  check_multiple("sliding_num_attention_heads", heads, "sliding_num_query_groups", groups);
  check_product("sliding_num_attention_heads * head_dim", heads, spec.head_dim);
}

void check_sizes(const ModelSpec& spec) {
  check_count("num_layers", spec.num_layers, kMaxLayers);
  check_count("hidden_size", spec.hidden_size);
  check_count("vocab_size", spec.vocab_size);
  check_count("max_position_embeddings", spec.max_position_embeddings);
  const bool mlp =
      spec.feed_forward_pattern.empty() ||
      std::ranges::find(spec.feed_forward_pattern, true) != spec.feed_forward_pattern.end();
  check_count("ffn_hidden_size", spec.ffn_hidden_size, kMaxCount, mlp ? 1 : 0);
  if (!uses_attention(spec)) {
    expect(spec.num_attention_heads == 0 && spec.num_query_groups == 0 && spec.head_dim == 0,
           "expected no attention heads in a model without attention layers");
    return;
  }
  check_count("num_attention_heads", spec.num_attention_heads);
  check_count("num_query_groups", spec.num_query_groups, spec.num_attention_heads);
  check_count("head_dim", spec.head_dim, kMaxHeadDim);
  check_multiple("num_attention_heads", spec.num_attention_heads, "num_query_groups",
                 spec.num_query_groups);
  check_product("num_attention_heads * head_dim", spec.num_attention_heads, spec.head_dim);
  check_sliding_heads(spec);
}

void check_patterns(const ModelSpec& spec) {
  const auto length = static_cast<int64_t>(spec.layer_pattern.size());
  expect(length <= kMaxPattern && spec.feed_forward_pattern.size() <= size_t{kMaxPattern} &&
             spec.rotary_pattern.size() <= size_t{kMaxPattern},
         "expected a pattern of at most one kind per layer");
  if (spec.sliding_window) check_count("sliding_window", *spec.sliding_window);
  expect(spec.sliding_window || !uses(spec, MixerKind::kSlidingAttention),
         "expected sliding_window with sliding attention layers, got none");
  expect(!spec.sliding_window || length == 0 || uses(spec, MixerKind::kSlidingAttention) ||
             uses_compressed_keys(spec),
         "expected no sliding_window without sliding attention layers");
  expect(spec.gated_delta_net.has_value() == uses(spec, MixerKind::kGatedDeltaNet),
         "expected the sizes of gated_delta_net exactly where layers are of that kind");
  expect(spec.mamba2.has_value() == uses(spec, MixerKind::kMamba2),
         "expected the sizes of mamba2 exactly where layers are of that kind");
  for (int64_t l = 0; l < std::min(spec.num_layers, kMaxPattern); ++l) {
    const LayerSpec layer = spec.layer(l);
    expect(layer.mixer != MixerKind::kNone || layer.feed_forward != FeedForwardKind::kNone,
           fmt::format("expected layer {} to do something", l));
  }
}

void check_recurrent(const ModelSpec& spec) {
  if (const auto& net = spec.gated_delta_net) {
    check_count("gated_delta_net.num_key_heads", net->num_key_heads);
    check_count("gated_delta_net.num_value_heads", net->num_value_heads);
    check_count("gated_delta_net.key_head_dim", net->key_head_dim, kMaxHeadDim);
    check_count("gated_delta_net.value_head_dim", net->value_head_dim, kMaxHeadDim);
    check_count("gated_delta_net.conv_kernel", net->conv_kernel, 1024);
    check_multiple("gated_delta_net.num_value_heads", net->num_value_heads, "num_key_heads",
                   net->num_key_heads);
    check_product("gated_delta_net key heads * size", net->num_key_heads, net->key_head_dim);
    check_product("gated_delta_net value heads * size", net->num_value_heads, net->value_head_dim);
  }
  if (const auto& mamba = spec.mamba2) {
    check_count("mamba2.inner_size", mamba->inner_size);
    check_count("mamba2.head_dim", mamba->head_dim, kMaxHeadDim);
    check_count("mamba2.num_groups", mamba->num_groups);
    check_count("mamba2.state_size", mamba->state_size, kMaxHeadDim);
    check_count("mamba2.conv_kernel", mamba->conv_kernel, 1024);
    check_count("mamba2.chunk_size", mamba->chunk_size, 65536);
    check_multiple("mamba2.inner_size", mamba->inner_size, "mamba2.head_dim", mamba->head_dim);
    check_multiple("the heads of mamba2", mamba->num_heads(), "mamba2.num_groups",
                   mamba->num_groups);
    check_product("mamba2.num_groups * mamba2.state_size", mamba->num_groups, mamba->state_size);
  }
}

void check_attention(const ModelSpec& spec) {
  check_positive("query_pre_attn_scalar", spec.query_pre_attn_scalar);
  check_positive("attention_softcap", spec.attention_softcap);
  check_positive("final_logit_softcap", spec.final_logit_softcap);
  check_positive("qkv_clip", spec.qkv_clip);
  check_count("key_value_share_factor", spec.key_value_share_factor, kMaxLayers);
  expect(spec.key_value_share_factor == 1 || spec.layer_pattern.empty(),
         "expected attention of one kind in all layers that share keys and values");
  expect(spec.qk_norm == QkNorm::kNone || uses_attention(spec),
         "expected qk_norm in models with attention only");
}

void check_limits(const char* name, const ModelSpec& spec, const std::vector<double>& limits) {
  expect(limits.size() <= size_t{kMaxPattern},
         fmt::format("expected {} to have at most one number per layer", name));
  expect(limits.empty() || spec.gated_mlp, fmt::format("expected {} with a gated MLP only", name));
  for (const double limit : limits) {
    check_not_negative(name, limit);
    expect(limit > 0 || spec.activation != Activation::kClampedSwiglu,
           fmt::format("expected {} above 0 with clamped_swiglu, got 0", name));
  }
}

void check_scalars(const ModelSpec& spec) {
  expect(std::isfinite(spec.norm_eps) && spec.norm_eps >= 0 && spec.norm_eps < 1,
         fmt::format("expected norm_eps in [0, 1), got {}", spec.norm_eps));
  expect(!(spec.norm == NormKind::kRmsNorm && spec.norm_bias),
         "expected norm_bias with LayerNorm only, got RMSNorm");
  expect(std::isfinite(spec.init_std) && spec.init_std >= 0 && spec.init_std <= 1,
         fmt::format("expected init_std in [0, 1], got {}", spec.init_std));
  check_limits("activation_limit", spec, spec.activation_limit);
  expect(spec.activation != Activation::kClampedSwiglu ||
             (spec.gated_mlp && !spec.activation_limit.empty()),
         "expected a gated MLP and activation_limit with clamped_swiglu");
  if (spec.moe) check_limits("moe.activation_limit", spec, spec.moe->activation_limit);
  check_positive("embedding_multiplier", spec.embedding_multiplier);
  check_positive("residual_multiplier", spec.residual_multiplier);
  check_positive("hidden_divisor", spec.hidden_divisor);
  check_positive("logits_multiplier", spec.logits_multiplier);
  check_count("mtp.num_layers", spec.mtp.num_layers, 64, 0);
  check_not_negative("mtp.loss_scaling_factor", spec.mtp.loss_scaling_factor);
  expect(spec.mtp.num_layers == 0 || !(spec.moe && spec.moe->shortcut),
         "expected no multi-token prediction with moe.shortcut");
  expect(spec.mtp.num_layers == 0 || !spec.hyper_connections,
         "expected no multi-token prediction with hyper_connections");
}

void check_token_id(const char* name, int64_t id) { check_count(name, id, kMaxCount, 0); }

double real(int64_t value) { return static_cast<double>(value); }

// Upper bound of the count of parameters, in double, which cannot overflow here, before anything
// multiplies the sizes in int64_t.
void check_total(const ModelSpec& spec) {
  const double h = real(spec.hidden_size);
  double layer = 8 * h;
  const int64_t heads =
      std::max(spec.num_attention_heads, spec.sliding_num_attention_heads.value_or(0));
  const int64_t groups = std::max(spec.num_query_groups, spec.sliding_num_query_groups.value_or(0));
  const double query = real(heads * spec.head_dim);
  layer += h * (3 * query + 2 * real(groups * spec.head_dim) + real(heads));
  layer += 3 * h * real(spec.ffn_hidden_size);
  if (const auto& mla = spec.latent_attention) {
    layer += real(mla->q_lora_rank.value_or(0)) * (h + query);
    layer += real(mla->kv_lora_rank + mla->qk_rope_head_dim) * h +
             real(mla->kv_lora_rank) * real(heads) * real(mla->qk_nope_head_dim + mla->v_head_dim) +
             real(heads) * real(mla->v_head_dim) * h;
  }
  double query_latent =
      spec.latent_attention ? real(spec.latent_attention->q_lora_rank.value_or(0)) : 0;
  if (const auto& wide = spec.compressed_attention) {
    query_latent = real(wide->q_lora_rank);
    layer += query_latent * (h + query) +
             real(wide->output_lora_rank) * (query + h * real(wide->output_groups)) +
             real(spec.head_dim) * (4 * h + 2 * real(wide->sparse_ratio) + real(wide->heavy_ratio));
  }
  if (spec.indexer) {
    layer += (query_latent + h) * real(spec.indexer->num_heads * spec.indexer->head_dim) +
             4 * h * real(spec.indexer->head_dim);
  }
  if (const auto& hyper = spec.hyper_connections) {
    const double n = real(hyper->streams);
    layer += 2 * (2 + n) * n * (n * h + 1);
  }
  if (const auto& moe = spec.moe) {
    layer += 3 * h *
                 (real(moe->num_experts) * real(moe->ffn_hidden_size) +
                  real(moe->shared_ffn_hidden_size)) +
             h * real(moe->num_experts + moe->num_zero_experts + 1);
    if (moe->num_hash_layers > 0) layer += real(moe->top_k) * real(spec.vocab_size);
  }
  if (const auto& net = spec.gated_delta_net) {
    layer += h * (2 * real(net->key_size()) + 4 * real(net->value_size()));
  }
  if (const auto& mamba = spec.mamba2) {
    layer += h * (4 * real(mamba->inner_size) + 2 * real(mamba->num_groups * mamba->state_size));
  }
  const double positions =
      spec.position == PositionKind::kLearned ? h * real(spec.max_position_embeddings) : 0;
  const double total = real(spec.num_layers + spec.mtp.num_layers) * layer +
                       2 * h * real(spec.vocab_size) + positions +
                       2 * h * h * real(spec.mtp.num_layers);
  expect(total <= kMaxParameters,
         fmt::format("expected at most {:.0e} parameters, got {:.3e}", kMaxParameters, total),
         "look for a size with too many digits");
}

}  // namespace

void ModelSpec::validate() const {
  find_family(family);
  check_sizes(*this);
  check_moe(*this);  // before anything looks at a layer
  check_latent_attention(*this);
  check_compressed_attention(*this);
  check_hyper_connections(*this);
  check_patterns(*this);
  check_recurrent(*this);
  check_positions(*this);
  check_attention(*this);
  check_scalars(*this);
  check_total(*this);
  if (bos_token_id) check_token_id("bos_token_id", *bos_token_id);
  if (pad_token_id) check_token_id("pad_token_id", *pad_token_id);
  for (const int64_t id : eos_token_ids) check_token_id("eos_token_id", id);
}

}  // namespace qianli::model
