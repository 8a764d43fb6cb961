#include "qianli/model/spec.h"

#include <algorithm>
#include <cmath>

namespace qianli::model {
namespace {

MixerKind mixer_of(const ModelSpec& spec, int64_t l) {
  if (!spec.layer_pattern.empty()) {
    return spec.layer_pattern[static_cast<size_t>(l) % spec.layer_pattern.size()];
  }
  return spec.sliding_window ? MixerKind::kSlidingAttention : MixerKind::kAttention;
}

FeedForwardKind feed_forward_of(const ModelSpec& spec, int64_t l) {
  const auto& pattern = spec.feed_forward_pattern;
  if (!pattern.empty() && !pattern[static_cast<size_t>(l) % pattern.size()]) {
    return FeedForwardKind::kNone;
  }
  if (!spec.moe || spec.moe->shortcut) return FeedForwardKind::kDense;
  const MixtureOfExperts& moe = *spec.moe;
  const bool mixed = l >= moe.first_k_dense && (l - moe.layer_offset) % moe.layer_frequency == 0 &&
                     std::ranges::find(moe.dense_layers, l) == moe.dense_layers.end();
  return mixed ? FeedForwardKind::kMoe : FeedForwardKind::kDense;
}

const Rope* rope_of(const ModelSpec& spec, int64_t l, MixerKind mixer) {
  const bool sliding = mixer == MixerKind::kSlidingAttention;
  if (spec.position != PositionKind::kRotary) return nullptr;
  const auto& pattern = spec.rotary_pattern;
  if (!pattern.empty() && !pattern[static_cast<size_t>(l) % pattern.size()]) return nullptr;
  const bool compressed =
      mixer == MixerKind::kSparseCompressed || mixer == MixerKind::kHeavyCompressed;
  if (mixer != MixerKind::kAttention && !sliding && !compressed) return nullptr;
  if (spec.rotary_on_sliding_layers_only && !sliding) return nullptr;
  return sliding && spec.sliding_rope ? &*spec.sliding_rope : &spec.rope;
}

double limit_of(const std::vector<double>& pattern, int64_t l) {
  return pattern.empty() ? 0 : pattern[static_cast<size_t>(l) % pattern.size()];
}

void put_heads(const ModelSpec& spec, LayerSpec& layer) {
  if (!layer.has_attention()) return;
  const bool sliding = layer.mixer == MixerKind::kSlidingAttention;
  layer.head_dim = spec.head_dim;
  layer.num_heads = spec.num_attention_heads;
  layer.num_groups = spec.num_query_groups;
  if (sliding) layer.num_heads = spec.sliding_num_attention_heads.value_or(layer.num_heads);
  if (sliding) layer.num_groups = spec.sliding_num_query_groups.value_or(layer.num_groups);
}

}  // namespace

LayerSpec ModelSpec::layer(int64_t l) const {
  const bool behind = l >= num_layers;  // multi-token prediction
  l = std::min(l, num_layers - 1);
  LayerSpec layer{.mixer = mixer_of(*this, l), .feed_forward = feed_forward_of(*this, l)};
  if (layer.mixer == MixerKind::kSlidingAttention || layer.is_compressed()) {
    layer.window = sliding_window.value_or(0);
  }
  layer.rope = rope_of(*this, l, layer.mixer);
  put_heads(*this, layer);
  layer.activation_limit = limit_of(activation_limit, l);
  layer.expert_activation_limit = layer.activation_limit;
  if (moe && !moe->activation_limit.empty()) {
    layer.expert_activation_limit = limit_of(moe->activation_limit, l);
  }
  layer.shares_key_value = key_value_share_factor > 1 && l % key_value_share_factor != 0;
  if (compressed_attention) {
    layer.owns_indexer = layer.mixer == MixerKind::kSparseCompressed;
    if (layer.owns_indexer) layer.compression = compressed_attention->sparse_ratio;
    if (layer.mixer == MixerKind::kHeavyCompressed) {
      layer.compression = compressed_attention->heavy_ratio;
    }
  } else {
    layer.owns_indexer =
        indexer &&
        (behind || std::max<int64_t>(l + 1 - indexer->skip, 0) % indexer->frequency == 0);
  }
  layer.routes_by_token =
      layer.feed_forward == FeedForwardKind::kMoe && !behind && l < moe->num_hash_layers;
  layer.shortcut_moe = moe && moe->shortcut && l % 2 == 0;
  return layer;
}

double ModelSpec::attention_scale() const {
  const auto size = static_cast<double>(head_dim);
  double scale = 1.0 / std::sqrt(query_pre_attn_scalar.value_or(size));
  const RopeScaling& scaling = rope.scaling;
  if (latent_attention && scaling.kind == RopeScalingKind::kYarn && scaling.mscale_all_dim &&
      scaling.factor > 1) {
    const double m = 0.1 * *scaling.mscale_all_dim * std::log(scaling.factor) + 1.0;
    scale *= m * m;
  }
  return scale;
}

}  // namespace qianli::model
