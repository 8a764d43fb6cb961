// What every model must satisfy before anything multiplies its sizes.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/model/family.h"
#include "qianli/model/spec.h"

namespace qianli::model {
namespace {

constexpr int64_t kMaxCount = (int64_t{1} << 31) - 1;  // of any one size
constexpr int64_t kMaxLayers = 100000;
constexpr int64_t kMaxHeadDim = 65536;
constexpr int64_t kMaxExperts = 65536;
constexpr int64_t kMaxPattern = 100000;
constexpr double kMaxParameters = 1e13;

void expect(bool holds, const std::string& problem, const std::string& hint = {}) {
  if (!holds) throw ConfigError("model", problem, hint);
}

void check_count(const char* name, int64_t value, int64_t limit = kMaxCount, int64_t least = 1) {
  expect(value >= least && value <= limit,
         fmt::format("expected {} between {} and {}, got {}", name, least, limit, value));
}

void check_multiple(const char* name, int64_t value, const char* of, int64_t divisor) {
  expect(value % divisor == 0, fmt::format("expected {} to be a multiple of {}, got {} and {}",
                                           name, of, value, divisor));
}

void check_product(const char* name, int64_t a, int64_t b) {
  // Products of two sizes below 2^31 fit in int64_t, so this one cannot overflow.
  expect(a * b <= kMaxCount, fmt::format("expected {} up to {}, got {}", name, kMaxCount, a * b));
}

void check_positive(const char* name, double value) {
  expect(std::isfinite(value) && value > 0,
         fmt::format("expected {} to be a positive number, got {}", name, value));
}

void check_positive(const char* name, const std::optional<double>& value) {
  if (value) check_positive(name, *value);
}

void check_not_negative(const char* name, double value) {
  expect(std::isfinite(value) && value >= 0,
         fmt::format("expected {} to be 0 or more, got {}", name, value));
}

bool uses(const ModelSpec& spec, MixerKind kind) {
  return std::ranges::find(spec.layer_pattern, kind) != spec.layer_pattern.end();
}

bool uses_attention(const ModelSpec& spec) {
  return spec.layer_pattern.empty() || uses(spec, MixerKind::kAttention) ||
         uses(spec, MixerKind::kSlidingAttention);
}

// Layers with a window may have heads of their own.
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

void check_yarn(const RopeScaling& scaling) {
  check_positive("rope.scaling.beta_slow", scaling.beta_slow);
  expect(std::isfinite(scaling.beta_fast) && scaling.beta_fast >= scaling.beta_slow,
         fmt::format("expected rope.scaling.beta_fast of at least beta_slow ({}), got {}",
                     scaling.beta_slow, scaling.beta_fast));
  check_positive("rope.scaling.mscale", scaling.mscale);
  check_positive("rope.scaling.mscale_all_dim", scaling.mscale_all_dim);
}

void check_factors(const char* name, const std::vector<double>& factors, int64_t pairs) {
  expect(static_cast<int64_t>(factors.size()) == pairs,
         fmt::format("expected one number per rotated pair ({}) in rope.scaling.{}, got {}", pairs,
                     name, factors.size()));
  for (const double factor : factors) check_positive(name, factor);
}

void check_rope_scaling(const RopeScaling& scaling, int64_t dimensions) {
  if (scaling.kind == RopeScalingKind::kNone) return;
  expect(std::isfinite(scaling.factor) && scaling.factor >= 1,
         fmt::format("expected rope.scaling.factor of 1 or more, got {}", scaling.factor));
  check_positive("rope.scaling.attention_factor", scaling.attention_factor);
  const bool from_original = scaling.kind == RopeScalingKind::kLlama3 ||
                             scaling.kind == RopeScalingKind::kYarn ||
                             scaling.kind == RopeScalingKind::kLongrope;
  if (from_original) {
    check_count("rope.scaling.original_max_positions", scaling.original_max_positions);
  }
  switch (scaling.kind) {
    case RopeScalingKind::kNone:
    case RopeScalingKind::kLinear:
      return;
    case RopeScalingKind::kDynamic:
    case RopeScalingKind::kNtkAlpha:
      expect(dimensions > 2,
             "expected more than 2 rotated dimensions of a head with this rope.scaling, got 2");
      return;
    case RopeScalingKind::kLlama3:
      check_positive("rope.scaling.low_freq_factor", scaling.low_freq_factor);
      expect(
          std::isfinite(scaling.high_freq_factor) &&
              scaling.high_freq_factor > scaling.low_freq_factor,
          fmt::format("expected rope.scaling.high_freq_factor above low_freq_factor ({}), got {}",
                      scaling.low_freq_factor, scaling.high_freq_factor));
      return;
    case RopeScalingKind::kYarn:
      return check_yarn(scaling);
    case RopeScalingKind::kLongrope:
      check_factors("short_factor", scaling.short_factor, dimensions / 2);
      check_factors("long_factor", scaling.long_factor, dimensions / 2);
      check_positive("rope.scaling.short_mscale", scaling.short_mscale);
      check_positive("rope.scaling.long_mscale", scaling.long_mscale);
      expect(scaling.original_max_positions > 1,
             "expected original positions above 1 for longrope");
      return;
  }
}

void check_rope(const ModelSpec& spec, const Rope& rope) {
  expect(std::isfinite(rope.base) && rope.base > 1,
         fmt::format("expected rope.base above 1, got {}", rope.base));
  expect(std::isfinite(rope.fraction) && rope.fraction > 0 && rope.fraction <= 1,
         fmt::format("expected rope.fraction in (0, 1], got {}", rope.fraction));
  const int64_t dimensions = spec.rotary_size(rope);
  expect(
      dimensions >= 2 && dimensions % 2 == 0,
      fmt::format("expected an even number of rotated dimensions of head_dim, got {}", dimensions),
      "rotary positions turn pairs of dimensions");
  check_rope_scaling(rope.scaling, dimensions);
}

void check_positions(const ModelSpec& spec) {
  if (spec.position == PositionKind::kRotary) {
    if (!uses_attention(spec)) return;
    check_rope(spec, spec.rope);
    if (spec.sliding_rope) check_rope(spec, *spec.sliding_rope);
    return;
  }
  expect(spec.rope.scaling.kind == RopeScalingKind::kNone && !spec.sliding_rope,
         fmt::format("expected no rope.scaling with {} positions, got {}", to_string(spec.position),
                     to_string(spec.rope.scaling.kind)));
  expect(spec.rotary_pattern.empty(), "expected no rotary_pattern without rotary positions");
}

void check_patterns(const ModelSpec& spec) {
  const auto length = static_cast<int64_t>(spec.layer_pattern.size());
  expect(length <= kMaxPattern && spec.feed_forward_pattern.size() <= size_t{kMaxPattern} &&
             spec.rotary_pattern.size() <= size_t{kMaxPattern},
         "expected a pattern of at most one kind per layer");
  if (spec.sliding_window) check_count("sliding_window", *spec.sliding_window);
  expect(spec.sliding_window || !uses(spec, MixerKind::kSlidingAttention),
         "expected sliding_window with sliding attention layers, got none");
  expect(!spec.sliding_window || length == 0 || uses(spec, MixerKind::kSlidingAttention),
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

void check_latent_attention(const ModelSpec& spec) {
  if (!spec.latent_attention) {
    expect(!spec.indexer, "expected an indexer with latent attention only");
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

void check_groups(const MixtureOfExperts& moe) {
  check_count("moe.num_groups", moe.num_groups, moe.num_experts);
  check_count("moe.topk_groups", moe.topk_groups, moe.num_groups);
  check_multiple("moe.num_experts", moe.num_experts, "moe.num_groups", moe.num_groups);
  if (moe.num_groups == 1) return;
  expect(moe.num_zero_experts == 0, "expected no zero experts with groups of experts");
  const int64_t group = moe.num_experts / moe.num_groups;
  expect(group >= 2 || moe.group_score == GroupScore::kMax,
         "expected at least 2 experts in a group, got 1");
  expect(moe.top_k <= moe.topk_groups * group,
         fmt::format("expected moe.top_k of at most the {} experts of {} groups, got {}",
                     moe.topk_groups * group, moe.topk_groups, moe.top_k));
}

// Megatron-core's: the weights are sigmoids where a token has one expert, else the softmax over all
// experts, as they are.
void check_sinkhorn(const MixtureOfExperts& moe) {
  if (!moe.sinkhorn) return;
  const RouterScore score = moe.top_k == 1 ? RouterScore::kSigmoid : RouterScore::kSoftmax;
  expect(moe.score == score,
         fmt::format("expected moe.score of {} with moe.sinkhorn and moe.top_k of {}, got {}",
                     to_string(score), moe.top_k, to_string(moe.score)));
  expect(!moe.normalize_top_k && moe.scaling_factor == 1.0 && moe.num_groups == 1 &&
             !moe.selection_bias,
         "expected moe.sinkhorn without normalize_top_k, scaling_factor, groups or a selection "
         "bias");
  expect(moe.aux_loss_coeff == 0 && moe.sequence_aux_loss_coeff == 0 &&
             moe.device_aux_loss_coeff == 0 && moe.communication_aux_loss_coeff == 0,
         "expected no balancing losses with moe.sinkhorn, which balances by itself");
  expect(!moe.capacity_factor, "expected no moe.capacity_factor with moe.sinkhorn");
}

void check_moe(const ModelSpec& spec) {
  if (!spec.moe) return;
  const MixtureOfExperts& moe = *spec.moe;
  check_count("moe.num_experts", moe.num_experts, kMaxExperts);
  check_count("moe.num_zero_experts", moe.num_zero_experts, kMaxExperts, 0);
  check_count("moe.top_k", moe.top_k, moe.num_experts + moe.num_zero_experts);
  check_count("moe.ffn_hidden_size", moe.ffn_hidden_size);
  check_count("moe.shared_ffn_hidden_size", moe.shared_ffn_hidden_size, kMaxCount, 0);
  expect(!moe.shared_gate || moe.shared_ffn_hidden_size > 0,
         "expected moe.shared_gate with shared experts only");
  check_groups(moe);
  expect(moe.score != RouterScore::kSparseMixer || (moe.top_k == 2 && moe.num_groups == 1),
         "expected moe.top_k of 2 with the sparse mixer");
  expect(moe.score != RouterScore::kSparseMixer || moe.num_experts >= 2,
         "expected at least 2 experts with the sparse mixer");
  check_positive("moe.scaling_factor", moe.scaling_factor);
  check_positive("moe.sparse_mixer_epsilon", moe.sparse_mixer_epsilon);
  check_count("moe.first_k_dense", moe.first_k_dense, kMaxLayers, 0);
  check_count("moe.layer_frequency", moe.layer_frequency, kMaxLayers);
  check_count("moe.layer_offset", moe.layer_offset, moe.layer_frequency - 1, 0);
  expect(moe.dense_layers.size() <= size_t{kMaxLayers},
         "expected at most one entry per layer in moe.dense_layers");
  for (const int64_t l : moe.dense_layers) check_count("moe.dense_layers", l, kMaxLayers, 0);
  expect(!moe.shortcut || spec.num_layers % 2 == 0,
         "expected an even num_layers with moe.shortcut");
  check_not_negative("moe.aux_loss_coeff", moe.aux_loss_coeff);
  check_not_negative("moe.sequence_aux_loss_coeff", moe.sequence_aux_loss_coeff);
  check_not_negative("moe.device_aux_loss_coeff", moe.device_aux_loss_coeff);
  check_not_negative("moe.communication_aux_loss_coeff", moe.communication_aux_loss_coeff);
  check_not_negative("moe.z_loss_coeff", moe.z_loss_coeff);
  check_not_negative("moe.bias_update_rate", moe.bias_update_rate);
  expect(moe.input_jitter >= 0 && moe.input_jitter < 1,
         fmt::format("expected moe.input_jitter in [0, 1), got {}", moe.input_jitter));
  check_positive("moe.capacity_factor", moe.capacity_factor);
  expect(!moe.pad_to_capacity || moe.capacity_factor,
         "expected moe.pad_to_capacity with moe.capacity_factor only");
  check_sinkhorn(moe);
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
  if (spec.indexer) {
    layer += (real(spec.latent_attention->q_lora_rank.value_or(0)) + h) *
                 real(spec.indexer->num_heads * spec.indexer->head_dim) +
             h * real(spec.indexer->head_dim);
  }
  if (const auto& moe = spec.moe) {
    layer += 3 * h *
                 (real(moe->num_experts) * real(moe->ffn_hidden_size) +
                  real(moe->shared_ffn_hidden_size)) +
             h * real(moe->num_experts + moe->num_zero_experts + 1);
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
