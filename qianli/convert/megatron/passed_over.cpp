// Megatron-LM core_v0.12, megatron/training/arguments.py, has none of these names;
// MindSpeed-LLM 2.2 has them.
#include <array>

#include "qianli/convert/megatron/arguments.h"
#include "qianli/convert/megatron/stored_arguments.h"

namespace qianli::convert {
namespace {

// Those that change what a model computes, or how it is cut, wherever they are neither None nor
// False.
constexpr std::array kOfMindSpeed = {
    "rope_scaling_type",
    "post_norm",
    "attn_logit_softcapping",
    "output_logit_softcapping",
    "query_pre_attn_scalar",
    "geglu",
    "gelu_tanh",
    "embed_layernorm",
    "add_output_layer_bias",
    "scale_emb",
    "output_multiplier_scale",
    "scale_depth",
    "dim_model_base",
    "cla_share_factor",
    "sliding_window",
    "interleave_sliding_window",
    "full_attention_interval",
    "shared_expert_gate",
    "num_zero_experts",
    "enable_mla_scale_q_lora",
    "enable_mla_scale_kv_lora",
    "enable_dsa_indexer",
    "mtp_after_norm",
    "noop_layers",
    "moe_tp_extend_ep",
    "schedules_method",
};

bool is_set(const StoredArguments& args, const char* name) {
  const formats::Value* value = args.find(name);
  return value && value->as_bool().value_or(true);
}

}  // namespace

std::vector<std::string> passed_over_by_megatron(const formats::Value& arguments) {
  const StoredArguments args(&arguments, "arguments");
  std::vector<std::string> names;
  for (const char* name : kOfMindSpeed) {
    if (is_set(args, name)) names.emplace_back(name);
  }
  // Known names with values that are not, or that mean something else together.
  const std::string balancing = args.text("moe_router_load_balancing_type");
  for (const char* own : {"sparsemixer_topk", "group_limited_greedy", "noaux_tc"}) {
    if (balancing == own) names.push_back("moe_router_load_balancing_type " + balancing);
  }
  if (is_set(args, "norm_topk_prob") && is_set(args, "moe_router_pre_softmax"))
    names.emplace_back("norm_topk_prob");
  if (args.text("position_embedding_type") == "alibi")
    names.emplace_back("position_embedding_type alibi");
  if (is_set(args, "add_dense_bias") && !is_set(args, "add_bias_linear"))
    names.emplace_back("add_dense_bias");
  if (args.find("num_layer_list") && !args.find("decoder_first_pipeline_num_layers"))
    names.emplace_back("num_layer_list");
  return names;
}

}  // namespace qianli::convert
