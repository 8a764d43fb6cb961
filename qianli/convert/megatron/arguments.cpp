#include "qianli/convert/megatron/arguments.h"

#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/convert/megatron/attributes.h"
#include "qianli/convert/megatron/stored_arguments.h"
#include "qianli/formats/torch_types.h"
#include "qianli/model/hugging_face.h"

namespace qianli::convert {
namespace {

using formats::Value;

void add_sizes(const model::ModelSpec& spec, Attributes& attributes) {
  attributes.add("hidden_size", spec.hidden_size);
  attributes.add("ffn_hidden_size", spec.ffn_hidden_size);
  attributes.add("num_attention_heads", spec.num_attention_heads);
  attributes.add("group_query_attention", spec.num_query_groups != spec.num_attention_heads);
  attributes.add("num_query_groups", spec.num_query_groups);
  attributes.add("kv_channels", spec.head_dim);
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

// Megatron-core's words for uneven stages tell the first and the last, the others being alike.
void add_stages(const MegatronLayout& layout, Attributes& attributes) {
  const auto& stages = layout.layers_per_stage;
  attributes.add("num_layer_list", stages);
  if (stages.size() < 2) return;
  const auto alike = [&](int64_t count) { return count == stages[1]; };
  if (!std::all_of(stages.begin() + 1, stages.end() - 1, alike)) return;
  attributes.add("decoder_first_pipeline_num_layers", stages.front());
  attributes.add("decoder_last_pipeline_num_layers", stages.back());
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
  add_positions(spec, is_plain(layout), attributes);
  add_scales(spec, attributes);
  add_windows(spec, attributes);
  if (spec.moe) add_experts(spec, is_plain(layout), attributes);
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
  add_stages(layout, attributes);
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
