#include "qianli/convert/megatron_arguments.h"

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
  Value as_namespace() && {
    return Value::object({.callable = {"argparse", "Namespace"},
                          .arguments = Value::tuple({}),
                          .state = Value::dict(std::move(entries_))});
  }

 private:
  formats::Entries entries_;
};

void add_model(const model::ModelSpec& spec, Attributes& attributes) {
  attributes.add("hidden_size", spec.hidden_size);
  attributes.add("ffn_hidden_size", spec.ffn_hidden_size);
  attributes.add("num_attention_heads", spec.num_attention_heads);
  attributes.add("group_query_attention", spec.num_query_groups != spec.num_attention_heads);
  attributes.add("num_query_groups", spec.num_query_groups);
  attributes.add("kv_channels", spec.head_dim);
  attributes.add("max_position_embeddings", spec.max_position_embeddings);
  attributes.add("seq_length", spec.max_position_embeddings);
  attributes.add("vocab_size", spec.vocab_size);
  attributes.add("normalization", spec.norm == model::NormKind::kRmsNorm ? "RMSNorm" : "LayerNorm");
  attributes.add("norm_epsilon", spec.norm_eps);
  attributes.add("swiglu", spec.gated_mlp && spec.activation == model::Activation::kSilu);
  attributes.add("add_bias_linear", spec.mlp_bias);
  attributes.add("add_qkv_bias", spec.qkv_bias);
  attributes.add("qk_layernorm",
                 spec.qk_norm != model::QkNorm::kNone || spec.latent_attention.has_value());
  attributes.add("untie_embeddings_and_output_weights", !spec.tie_word_embeddings);
  attributes.add("add_position_embedding", spec.position == model::PositionKind::kLearned);
  attributes.add("position_embedding_type", spec.position == model::PositionKind::kRotary  ? "rope"
                                            : spec.position == model::PositionKind::kAlibi ? "alibi"
                                            : spec.position == model::PositionKind::kLearned
                                                ? "learned_absolute"
                                                : "none");
  attributes.add("rotary_base", spec.rope.base);
  attributes.add("rotary_percent", spec.rope.fraction);
}

void add_special_blocks(const model::ModelSpec& spec, Attributes& attributes) {
  if (const auto& moe = spec.moe) {
    attributes.add("num_experts", moe->num_experts);
    attributes.add("moe_router_topk", moe->top_k);
    attributes.add("moe_ffn_hidden_size", moe->ffn_hidden_size);
    attributes.add("first_k_dense_replace", moe->first_k_dense);
    attributes.add("moe_layer_freq", moe->layer_frequency);
    if (moe->shared_ffn_hidden_size > 0) {
      attributes.add("moe_shared_expert_intermediate_size", moe->shared_ffn_hidden_size);
    }
  }
  if (const auto& latent = spec.latent_attention) {
    attributes.add("multi_latent_attention", true);
    if (latent->q_lora_rank) attributes.add("q_lora_rank", *latent->q_lora_rank);
    attributes.add("kv_lora_rank", latent->kv_lora_rank);
    attributes.add("qk_head_dim", latent->qk_nope_head_dim);
    attributes.add("qk_pos_emb_head_dim", latent->qk_rope_head_dim);
    attributes.add("v_head_dim", latent->v_head_dim);
  }
  if (spec.mtp.num_layers > 0) attributes.add("mtp_num_layers", spec.mtp.num_layers);
}

}  // namespace

Value megatron_arguments(const model::ModelSpec& spec, const MegatronLayout& layout,
                         formats::Dtype dtype) {
  const std::string type(formats::torch_type(dtype).name);
  Attributes attributes;
  attributes.add("num_layers", spec.num_layers / own_layers(spec) +
                                   static_cast<int64_t>(layout.noop_layers.size()));
  add_model(spec, attributes);
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
  attributes.add("qianli_config", Value::text(model::to_hugging_face(spec, type).dump()));
  return std::move(attributes).as_namespace();
}

}  // namespace qianli::convert
