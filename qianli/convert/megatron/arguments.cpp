#include "qianli/convert/megatron/arguments.h"

#include <cmath>

#include "qianli/base/error.h"
#include "qianli/convert/megatron/stored_arguments.h"
#include "qianli/formats/torch_types.h"
#include "qianli/model/hugging_face.h"

namespace qianli::convert {
namespace {

using formats::Value;

// Attributes of a namespace in the making.
class Attributes {
 public:
  void add(const char* name, int64_t value) { add(name, Value::integer(value)); }
  void add(const char* name, double value) { add(name, Value::real(value)); }
  void add(const char* name, bool value) { add(name, Value::boolean(value)); }
  void add(const char* name, const char* value) { add(name, Value::text(value)); }
  void add(const char* name, Value value) {
    entries_.emplace_back(Value::text(name), std::move(value));
  }
  void add(const char* name, const std::vector<int64_t>& values) {
    formats::Values list;
    for (const int64_t value : values) list.push_back(Value::integer(value));
    add(name, list.empty() ? Value() : Value::list(std::move(list)));
  }
  void add(const char* name, const std::vector<double>& values) {
    formats::Values list;
    for (const double value : values) list.push_back(Value::real(value));
    add(name, Value::list(std::move(list)));
  }
  Value as_namespace() && {
    return Value::object({.callable = {"argparse", "Namespace"},
                          .arguments = Value::tuple({}),
                          .state = Value::dict(std::move(entries_))});
  }

 private:
  formats::Entries entries_;
};

void add_sizes(const model::ModelSpec& spec, Attributes& attributes) {
  attributes.add("hidden_size", spec.hidden_size);
  attributes.add("ffn_hidden_size", spec.ffn_hidden_size);
  attributes.add("num_attention_heads", spec.num_attention_heads);
  attributes.add("group_query_attention", spec.num_query_groups != spec.num_attention_heads);
  attributes.add("num_query_groups", spec.num_query_groups);
  attributes.add("kv_channels", spec.head_dim);
  attributes.add("max_position_embeddings", spec.max_position_embeddings);
  attributes.add("seq_length", spec.max_position_embeddings);
  attributes.add("vocab_size", spec.vocab_size);
  attributes.add("init_method_std", spec.init_std);
}

void add_layers(const model::ModelSpec& spec, Attributes& attributes) {
  using model::Activation;
  attributes.add("normalization", spec.norm == model::NormKind::kRmsNorm ? "RMSNorm" : "LayerNorm");
  attributes.add("norm_epsilon", spec.norm_eps);
  attributes.add("layernorm_epsilon", spec.norm_eps);
  attributes.add("add_rmsnorm_offset", spec.norm_zero_centered);
  attributes.add("apply_layernorm_1p", spec.norm_zero_centered);
  attributes.add("embed_layernorm", spec.embedding_norm);
  attributes.add("post_norm", spec.norm_placement == model::NormPlacement::kSandwich);
  const bool gated = spec.gated_mlp, tanh = spec.activation == Activation::kGeluTanh;
  attributes.add("swiglu", gated && spec.activation == Activation::kSilu);
  attributes.add("geglu", gated && spec.activation == Activation::kGelu);
  attributes.add("gelu_tanh", gated && tanh);
  attributes.add("openai_gelu", !gated && tanh);
  attributes.add("squared_relu", spec.activation == Activation::kRelu2);
  attributes.add("bias_gelu_fusion", false);
  attributes.add("add_bias_linear", spec.mlp_bias);
  attributes.add("add_qkv_bias", spec.qkv_bias);
  attributes.add("add_dense_bias", spec.attention_out_bias);
  attributes.add("add_output_layer_bias", spec.output_bias);
  attributes.add("qk_layernorm",
                 spec.qk_norm != model::QkNorm::kNone || spec.latent_attention.has_value());
  attributes.add("untie_embeddings_and_output_weights", !spec.tie_word_embeddings);
}

void add_rope_scaling(const model::ModelSpec& spec, Attributes& attributes) {
  const model::RopeScaling& scaling = spec.rope.scaling;
  using model::RopeScalingKind;
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

void add_positions(const model::ModelSpec& spec, Attributes& attributes) {
  attributes.add("add_position_embedding", spec.position == model::PositionKind::kLearned);
  attributes.add("position_embedding_type", spec.position == model::PositionKind::kRotary  ? "rope"
                                            : spec.position == model::PositionKind::kAlibi ? "alibi"
                                            : spec.position == model::PositionKind::kLearned
                                                ? "learned_absolute"
                                                : "none");
  attributes.add("rotary_base", spec.rope.base);
  attributes.add("rotary_percent", spec.rope.fraction);
  attributes.add("rotary_interleaved", spec.rope.interleaved && !spec.latent_attention);
  add_rope_scaling(spec, attributes);
}

// Multipliers and caps: absent where they do nothing.
void add_scales(const model::ModelSpec& spec, Attributes& attributes) {
  const auto add = [&](const char* name, double value, double neutral) {
    if (value != neutral) attributes.add(name, value);
  };
  if (spec.attention_softcap) attributes.add("attn_logit_softcapping", *spec.attention_softcap);
  if (spec.final_logit_softcap)
    attributes.add("output_logit_softcapping", *spec.final_logit_softcap);
  if (spec.query_pre_attn_scalar)
    attributes.add("query_pre_attn_scalar", *spec.query_pre_attn_scalar);
  add("scale_emb", spec.embedding_multiplier, 1.0);
  add("output_multiplier_scale", spec.logits_multiplier, 1.0);
  const double root = std::sqrt(static_cast<double>(spec.num_layers));
  if (spec.residual_multiplier != 1.0)
    attributes.add("scale_depth", spec.residual_multiplier * root);
  if (spec.hidden_divisor != 1.0)
    attributes.add("dim_model_base", static_cast<double>(spec.hidden_size) / spec.hidden_divisor);
  add("cla_share_factor", static_cast<double>(spec.key_value_share_factor), 1.0);
}

void add_router(const model::MixtureOfExperts& moe, Attributes& attributes) {
  using model::RouterScore;
  attributes.add("moe_router_topk", moe.top_k);
  attributes.add("moe_router_score_function",
                 moe.score == RouterScore::kSigmoid ? "sigmoid" : "softmax");
  attributes.add("moe_router_pre_softmax", moe.score == RouterScore::kSoftmax);
  attributes.add("norm_topk_prob", moe.normalize_top_k);
  const bool limited = moe.num_groups > 1 && moe.group_score == model::GroupScore::kMax;
  attributes.add("moe_router_load_balancing_type", moe.score == RouterScore::kSparseMixer
                                                       ? "sparsemixer_topk"
                                                   : limited            ? "group_limited_greedy"
                                                   : moe.selection_bias ? "noaux_tc"
                                                                        : "aux_loss");
  attributes.add("moe_router_enable_expert_bias", moe.selection_bias);
  attributes.add("moe_router_num_groups", moe.num_groups);
  attributes.add("moe_router_group_topk", moe.topk_groups);
  attributes.add("moe_router_topk_scaling_factor", moe.scaling_factor);
}

// A step behind the first dense layers, or 0 and 1 for each layer.
void add_layers_with_experts(const model::ModelSpec& spec, Attributes& attributes) {
  const model::MixtureOfExperts& moe = *spec.moe;
  if (moe.layer_offset == 0 && moe.dense_layers.empty()) {
    attributes.add("first_k_dense_replace", moe.first_k_dense);
    attributes.add("moe_layer_freq", moe.layer_frequency);
    return;
  }
  std::vector<int64_t> layers;
  for (int64_t l = 0; l < spec.num_layers; ++l)
    layers.push_back(spec.layer(l).feed_forward == model::FeedForwardKind::kMoe ? 1 : 0);
  attributes.add("moe_layer_freq", layers);
}

void add_windows(const model::ModelSpec& spec, Attributes& attributes) {
  using model::MixerKind;
  if (spec.gated_delta_net)
    attributes.add("full_attention_interval", static_cast<int64_t>(spec.layer_pattern.size()));
  if (!spec.sliding_window) return;
  const bool alternate =
      spec.layer_pattern == std::vector{MixerKind::kSlidingAttention, MixerKind::kAttention};
  attributes.add(alternate ? "interleave_sliding_window" : "sliding_window", *spec.sliding_window);
}

void add_special_blocks(const model::ModelSpec& spec, Attributes& attributes) {
  if (const auto& moe = spec.moe) {
    attributes.add("num_experts", moe->num_experts);
    attributes.add("moe_ffn_hidden_size", moe->ffn_hidden_size);
    add_layers_with_experts(spec, attributes);
    if (moe->shared_ffn_hidden_size > 0) {
      attributes.add("moe_shared_expert_intermediate_size", moe->shared_ffn_hidden_size);
      attributes.add("shared_expert_gate", moe->shared_gate);
    }
    if (moe->num_zero_experts > 0) attributes.add("num_zero_experts", moe->num_zero_experts);
    add_router(*moe, attributes);
  }
  if (const auto& latent = spec.latent_attention) {
    attributes.add("multi_latent_attention", true);
    if (latent->q_lora_rank) attributes.add("q_lora_rank", *latent->q_lora_rank);
    attributes.add("kv_lora_rank", latent->kv_lora_rank);
    attributes.add("qk_head_dim", latent->qk_nope_head_dim);
    attributes.add("qk_pos_emb_head_dim", latent->qk_rope_head_dim);
    attributes.add("v_head_dim", latent->v_head_dim);
    if (latent->q_lora_scale != 1.0) attributes.add("enable_mla_scale_q_lora", true);
    if (latent->kv_lora_scale != 1.0) attributes.add("enable_mla_scale_kv_lora", true);
  }
  if (const auto& indexer = spec.indexer) {
    attributes.add("enable_dsa_indexer", true);
    attributes.add("index_n_heads", indexer->num_heads);
    attributes.add("index_head_dim", indexer->head_dim);
    attributes.add("index_topk", indexer->top_k);
    attributes.add("index_topk_freq", indexer->frequency);
    attributes.add("index_skip_topk_offset", indexer->skip);
  }
  if (spec.mtp.num_layers > 0) {
    attributes.add("mtp_num_layers", spec.mtp.num_layers);
    attributes.add("mtp_after_norm", spec.mtp.after_final_norm);
  }
}

// config.json as text; None where the family has no words for the model.
Value config_text(const model::ModelSpec& spec, const std::string& type) {
  try {
    return Value::text(model::to_hugging_face(spec, type).dump());
  } catch (const ConfigError&) {
    return {};
  }
}

// What no argument tells, or several ways of counting say alike, as `spec` has it.
void copy_what_is_equal(const model::ModelSpec& spec, model::ModelSpec& found) {
  found.family = spec.family;
  found.bos_token_id = spec.bos_token_id;
  found.eos_token_ids = spec.eos_token_ids;
  found.pad_token_id = spec.pad_token_id;
  found.init_std = spec.init_std;
  if (!spec.moe || !found.moe) return;
  const model::MixtureOfExperts moe = *found.moe;
  found.moe = spec.moe;
  found.moe->score = moe.score;
  found.moe->normalize_top_k = moe.normalize_top_k;
  found.moe->scaling_factor = moe.scaling_factor;
  found.moe->num_groups = moe.num_groups;
  found.moe->topk_groups = moe.topk_groups;
  found.moe->selection_bias = moe.selection_bias;
  found.moe->shared_gate = moe.shared_gate;
  if (spec.moe->num_groups > 1) found.moe->group_score = moe.group_score;
}

}  // namespace

std::vector<std::string> untold_by_arguments(const model::ModelSpec& spec, const Value& arguments) {
  formats::Entries entries = *arguments.as_object()->state.entries();
  std::erase_if(entries, [](const auto& e) { return *e.first.as_text() == "qianli_config"; });
  const Value told = Value::dict(std::move(entries));
  try {
    model::ModelSpec found =
        told_by_arguments(StoredArguments(&told, spec.family), spec.vocab_size);
    copy_what_is_equal(spec, found);
    return model::differences(spec, found);
  } catch (const CheckpointError& error) {
    return {error.what()};
  }
}

Value megatron_arguments(const model::ModelSpec& spec, const MegatronLayout& layout,
                         formats::Dtype dtype) {
  const std::string type(formats::torch_type(dtype).name);
  Attributes attributes;
  attributes.add("num_layers", spec.num_layers / own_layers(spec) +
                                   static_cast<int64_t>(layout.noop_layers.size()));
  add_sizes(spec, attributes);
  add_layers(spec, attributes);
  add_positions(spec, attributes);
  add_scales(spec, attributes);
  add_windows(spec, attributes);
  add_special_blocks(spec, attributes);
  attributes.add("padded_vocab_size", padded_vocab_size(spec, layout));
  attributes.add("make_vocab_size_divisible_by", layout.vocab_divisor);
  attributes.add("tensor_model_parallel_size", layout.tensor);
  attributes.add("pipeline_model_parallel_size", layout.pipeline);
  attributes.add("expert_model_parallel_size", layout.expert);
  attributes.add("expert_tensor_parallel_size", layout.experts_cut());
  attributes.add("num_layers_per_virtual_pipeline_stage",
                 layout.layers_per_virtual_stage > 0
                     ? Value::integer(layout.layers_per_virtual_stage)
                     : Value());
  attributes.add("num_layer_list", layout.layers_per_stage);
  attributes.add("noop_layers", layout.noop_layers);
  attributes.add("moe_tp_extend_ep", layout.tensor_extends_expert);
  attributes.add("moe_grouped_gemm", layout.experts != ExpertStorage::kLocalExperts);
  attributes.add("schedules_method", layout.dual_pipe_v ? Value::text("dualpipev") : Value());
  attributes.add("params_dtype", Value::global("torch", type));
  attributes.add("use_mcore_models", layout.names != MegatronNames::kLegacy);
  attributes.add("consumed_train_samples", int64_t{0});
  attributes.add("consumed_valid_samples", int64_t{0});
  attributes.add("qianli_config", config_text(spec, type));
  return std::move(attributes).as_namespace();
}

}  // namespace qianli::convert
