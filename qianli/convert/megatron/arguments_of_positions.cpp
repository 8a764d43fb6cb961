// How positions are told to Megatron-LM (core_v0.12) or MindSpeed-LLM (2.2).
#include "qianli/convert/megatron/attributes.h"

namespace qianli::convert {
namespace {

using model::RopeScaling;
using model::RopeScalingKind;

// Megatron-core's scaling of Llama 3.1 is fixed but for its factor.
bool is_llama3_of_megatron(const model::ModelSpec& spec) {
  const RopeScaling& scaling = spec.rope.scaling;
  return scaling.kind == RopeScalingKind::kLlama3 && !spec.latent_attention &&
         scaling.original_max_positions == 8192 && scaling.low_freq_factor == 1.0 &&
         scaling.high_freq_factor == 4.0;
}

// Its latent attention scales by yarn, where versions agree on mscale.
bool is_yarn_of_megatron(const model::ModelSpec& spec) {
  const RopeScaling& scaling = spec.rope.scaling;
  return scaling.kind == RopeScalingKind::kYarn && spec.latent_attention && scaling.mscale &&
         scaling.mscale == scaling.mscale_all_dim && *scaling.mscale != 0 && scaling.truncate &&
         static_cast<double>(scaling.original_max_positions) * scaling.factor ==
             static_cast<double>(spec.max_position_embeddings);
}

void add_megatron_yarn(const RopeScaling& scaling, Attributes& attributes) {
  attributes.add("rope_type", "yarn");
  attributes.add("rotary_scaling_factor", scaling.factor);
  attributes.add("original_max_position_embeddings", scaling.original_max_positions);
  attributes.add("beta_fast", scaling.beta_fast);
  attributes.add("beta_slow", scaling.beta_slow);
  attributes.add("mscale", *scaling.mscale);
  attributes.add("mscale_all_dim", *scaling.mscale_all_dim);
}

void add_mindspeed_scaling(const model::ModelSpec& spec, Attributes& attributes) {
  const RopeScaling& scaling = spec.rope.scaling;
  if (scaling.kind == RopeScalingKind::kLongrope) {
    attributes.add("rope_scaling_type", "longrope");
    attributes.add("original_max_position_embeddings", scaling.original_max_positions);
    attributes.add("short_factor", scaling.short_factor);
    attributes.add("long_factor", scaling.long_factor);
    if (scaling.short_mscale) attributes.add("short_mscale", *scaling.short_mscale);
    if (scaling.long_mscale) attributes.add("long_mscale", *scaling.long_mscale);
  }
  if (scaling.kind == RopeScalingKind::kLinear)
    attributes.add("rotary_seq_len_interpolation_factor", scaling.factor);
  if (scaling.kind != RopeScalingKind::kLlama3 && scaling.kind != RopeScalingKind::kYarn) return;
  const bool llama = scaling.kind == RopeScalingKind::kLlama3;
  attributes.add("rope_scaling_type", llama ? "llama3" : "yarn");
  attributes.add("rope_scaling_factor", scaling.factor);
  attributes.add("original_max_position_embeddings", scaling.original_max_positions);
  attributes.add("rope_scaling_original_max_position_embeddings", scaling.original_max_positions);
  if (llama) {
    attributes.add("low_freq_factor", scaling.low_freq_factor);
    attributes.add("high_freq_factor", scaling.high_freq_factor);
    return;
  }
  attributes.add("beta_fast", scaling.beta_fast);
  attributes.add("beta_slow", scaling.beta_slow);
  if (scaling.mscale) attributes.add("rope_scaling_mscale", *scaling.mscale);
  attributes.add("rope_scaling_mscale_all_dim", scaling.mscale_all_dim.value_or(0.0));
}

void add_rope_scaling(const model::ModelSpec& spec, bool plain, Attributes& attributes) {
  const RopeScaling& scaling = spec.rope.scaling;
  if (plain && is_yarn_of_megatron(spec)) return add_megatron_yarn(scaling, attributes);
  if (plain && is_llama3_of_megatron(spec)) {
    attributes.add("use_rope_scaling", true);
    return attributes.add("rope_scaling_factor", scaling.factor);
  }
  // Without a word Megatron-core's latent attention scales by 40.
  if (plain && spec.latent_attention) {
    attributes.add("rope_type", "rope");
    attributes.add("rotary_scaling_factor", 1.0);
  }
  add_mindspeed_scaling(spec, attributes);
}

}  // namespace

void add_positions(const model::ModelSpec& spec, bool plain, Attributes& attributes) {
  // Megatron-core's yarn counts from the length before it.
  const int64_t length = plain && is_yarn_of_megatron(spec)
                             ? spec.rope.scaling.original_max_positions
                             : spec.max_position_embeddings;
  attributes.add("max_position_embeddings", length);
  attributes.add("seq_length", length);
  attributes.add("add_position_embedding", spec.position == model::PositionKind::kLearned);
  attributes.add("position_embedding_type", spec.position == model::PositionKind::kRotary  ? "rope"
                                            : spec.position == model::PositionKind::kAlibi ? "alibi"
                                            : spec.position == model::PositionKind::kLearned
                                                ? "learned_absolute"
                                                : "none");
  attributes.add("rotary_base", spec.rope.base);
  attributes.add("rotary_percent", spec.rope.fraction);
  attributes.add("rotary_interleaved", spec.rope.interleaved && !spec.latent_attention);
  add_rope_scaling(spec, plain, attributes);
}

}  // namespace qianli::convert
