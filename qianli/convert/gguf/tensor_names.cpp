#include "qianli/convert/gguf/tensor_names.h"

#include <fmt/core.h>

#include <algorithm>
#include <span>

namespace qianli::convert {
namespace {

// By the end of a parameter's name without suffix.
struct Name {
  std::string_view own, gguf;
};
constexpr Name kOutside[] = {{"embedding.word_embeddings", "token_embd"},
                             {"embedding.word_embeddings.norm", "token_embd_norm"},
                             {"embedding.position_embeddings", "position_embd"},
                             {"decoder.final_layernorm", "output_norm"},
                             {"output_layer", "output"}};
constexpr Name kInLayer[] = {
    {"self_attention.linear_gate", "attn_gate"},
    {"self_attention.k_layernorm", "attn_k_norm"},
    {"self_attention.kv_layernorm", "attn_kv_a_norm"},
    {"self_attention.core_attention.softmax_offset", "attn_sinks.weight"},
    {"self_attention.linear_proj", "attn_output"},
    {"self_attention.linear_q_proj", "attn_q"},
    {"self_attention.linear_q_down_proj", "attn_q_a"},
    {"self_attention.linear_q_up_proj", "attn_q_b"},
    {"self_attention.linear_kv_down_proj", "attn_kv_a_mqa"},
    {"self_attention.indexer.linear_wq_b", "indexer.attn_q_b"},
    {"self_attention.indexer.linear_wk", "indexer.attn_k"},
    {"self_attention.indexer.k_norm", "indexer.k_norm"},
    {"self_attention.indexer.linear_weights_proj", "indexer.proj"},
    {"self_attention.conv1d", "ssm_conv1d"},
    {"self_attention.A_log", "ssm_a"},
    {"self_attention.dt_bias", "ssm_dt.bias"},
    {"self_attention.out_norm", "ssm_norm"},
    {"self_attention.out_proj", "ssm_out"},
    {"mixer.in_proj", "ssm_in"},
    {"mixer.conv1d", "ssm_conv1d"},
    {"mixer.dt_bias", "ssm_dt.bias"},
    {"mixer.out_proj", "ssm_out"},
    {"mlp.linear_fc2", "ffn_down"},
    {"mlp.router", "ffn_gate_inp"},
    {"mlp.router.expert_bias", "exp_probs_b.bias"},
    {"mlp.experts.linear_fc2", "ffn_down_exps"},
    {"mlp.shared_experts.linear_fc2", "ffn_down_shexp"},
    {"enorm", "nextn.enorm"},
    {"hnorm", "nextn.hnorm"},
    {"eh_proj", "nextn.eh_proj"},
};

std::string_view listed(std::span<const Name> names, std::string_view own) {
  const auto found = std::ranges::find(names, own, &Name::own);
  return found == names.end() ? std::string_view() : found->gguf;
}

std::string_view norm_name(const GgufParameter& parameter, const model::ModelSpec& spec,
                           const GgufArchitecture& architecture) {
  const bool two = spec.norm_placement == model::NormPlacement::kParallelTwo;
  const std::string_view name = parameter.name;
  if (parameter.ahead && name == "final_layernorm") {
    return architecture.output_norm_of_layers ? "layer_output_norm" : "nextn.shared_head_norm";
  }
  if (name == "input_layernorm") return two ? "attn_norm_2" : "attn_norm";
  if (name == "pre_mlp_layernorm") return two ? "attn_norm" : architecture.mlp_norm;
  if (name == "post_self_attn_layernorm") return architecture.post_attention_norm;
  if (name == "post_mlp_layernorm") return architecture.post_mlp_norm;
  return {};
}

}  // namespace

GgufParameter::GgufParameter(const model::ParameterEntry& entry) : name(entry.name) {
  for (const std::string_view prefix : {"decoder.layers.", "mtp.layers."}) {
    if (!name.starts_with(prefix)) continue;
    name = name.substr(name.find('.', prefix.size()) + 1);
    block = fmt::format("blk.{}.", entry.layer);
  }
  ahead = entry.name.starts_with("mtp.");
  constexpr std::string_view kInner = "transformer_layer.";
  if (name.starts_with(kInner)) {
    name = name.substr(kInner.size());
    ahead = false;  // like any other layer
  }
  for (const std::string_view one : {".weight", ".bias"}) {
    if (!name.ends_with(one)) continue;
    name = name.substr(0, name.size() - one.size());
    suffix = one;
  }
}

std::string_view gguf_name(const GgufParameter& parameter, const model::ModelSpec& spec,
                           const GgufArchitecture& architecture) {
  if (parameter.block.empty()) return listed(kOutside, parameter.name);
  if (parameter.name == "self_attention.q_layernorm") {
    return spec.latent_attention ? "attn_q_a_norm" : "attn_q_norm";
  }
  const auto norm = norm_name(parameter, spec, architecture);
  return norm.empty() ? listed(kInLayer, parameter.name) : norm;
}

}  // namespace qianli::convert
