// Step-3.5-Flash (StepFun), and the language model of Step-3.7-Flash. Published files say almost
// everything per layer, in the words of their own code; transformers 5 reads those and writes
// others, one set of rotary options for each type of layer among them. Both are read here, and the
// published words written.
#include "qianli/model/families/step3p5.h"

#include <fmt/core.h>

#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  if (config.text("hidden_act", "silu") != "silu") config.fail("hidden_act", "silu");
  spec.attention_out_bias = spec.qkv_bias;
  if (spec.query_pre_attn_scalar == static_cast<double>(spec.head_dim)) {
    spec.query_pre_attn_scalar.reset();
  }
  read_step3p5_layers(config, spec);
  read_tokens(config, std::nullopt, std::nullopt, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["hidden_act"] = "silu";
  write_step3p5_layers(spec, config);
  for (const char* key : {"use_moe", "use_moe_router_bias", "need_fp32_gate", "norm_expert_weight",
                          "use_head_wise_attn_gate", "use_qk_norm", "zero_centered"}) {
    config[key] = true;
  }
  config["moe_router_activation"] = "sigmoid";
  config["att_impl_type"] = "GQA";
  write_tokens(spec, config);
  if (!spec.pad_token_id) config.erase("pad_token_id");  // null is no number for transformers
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.other_prefixes = {"model.language_model."};
  names.ignored_prefixes = {"vision_model.", "vit_large_projector.", "model.vision_model.",
                            "model.multi_modal_projector."};
  names.query_norm = "self_attn.q_norm";
  names.key_norm = "self_attn.k_norm";
  names.head_gate = "self_attn.g_proj";
  names.experts = {.router = "moe.gate",
                   .selection_bias = "moe.router_bias",
                   .stacked_in = {"moe.gate_proj.weight", "moe.up_proj.weight"},
                   .stacked_out = "moe.down_proj.weight"};
  name_shared_experts("share_expert", names.experts);
  return names;
}

// The layers behind the last one: published files have three.
void adapt_names(const ModelSpec& spec, ForeignNames& names) {
  constexpr int64_t kMost = 8;
  for (int64_t l = spec.num_layers; l < spec.num_layers + kMost; ++l) {
    for (const char* prefix : {"model.layers.", "model.language_model.layers."}) {
      names.ignored_prefixes.push_back(fmt::format("{}{}.", prefix, l));
    }
  }
}

std::vector<Key> keys() {
  return {{"hidden_size", "hidden_size", 4096},
          {"intermediate_size", "ffn_hidden_size", 11264},
          {"num_hidden_layers", "num_layers", 45},
          {"num_attention_heads", "num_attention_heads", 64},
          {.key = "num_attention_groups",
           .field = "num_query_groups",
           .absent = 8,
           .also = "num_key_value_heads"},
          {"head_dim", "head_dim", 128},
          {"vocab_size", "vocab_size", 128815},
          {"max_position_embeddings", "max_position_embeddings", 128000},
          {"rms_norm_eps", "norm_eps", 1e-5},
          {"tie_word_embeddings", "tie_word_embeddings", false},
          {"initializer_range", "init_std", 0.02},
          {"attention_bias", "qkv_bias", false},
          {"sliding_window", "sliding_window", nullptr},
          {"query_pre_attn_scalar", "query_pre_attn_scalar", nullptr, {}, true},
          {.key = "moe_num_experts",
           .field = "moe.num_experts",
           .absent = 288,
           .also = "n_routed_experts"},
          {.key = "moe_top_k", .field = "moe.top_k", .absent = 8, .also = "num_experts_per_tok"},
          {"moe_intermediate_size", "moe.ffn_hidden_size", 1280},
          {.key = "share_expert_dim",
           .field = "moe.shared_ffn_hidden_size",
           .absent = 1280,
           .also = "share_expert_dims"},
          {"moe_router_scaling_factor", "moe.scaling_factor", 1.0}};
}

}  // namespace

const Family& step3p5_family() {
  static const Family family{
      .model_type = "step3p5",
      .architecture = "Step3p5ForCausalLM",
      .traits = {.family = "step3p5",
                 .norm_zero_centered = true,
                 .qk_norm = QkNorm::kHead,
                 .attention_gate = AttentionGate::kHead,
                 .moe = MixtureOfExperts{.score = RouterScore::kSigmoid,
                                         .normalize_top_k = true,
                                         .selection_bias = true}},
      .names = names(),
      .keys = keys(),
      .others = {{"swiglu_limits_shared", "activation_limit"},
                 {"swiglu_limits", "moe.activation_limit"}},
      .guards = {{"use_moe", {true}},
                 {"moe_every_n_layer", {1}},
                 {"moe_layer_offset", {0}},
                 {"moe_router_activation", {"sigmoid"}},
                 {"use_moe_router_bias", {true}},
                 {"norm_expert_weight", {true}},
                 {"use_head_wise_attn_gate", {true}},
                 {"gating", {true, "per-head"}},
                 {"use_qk_norm", {true}},
                 {"zero_centered", {true}},
                 {"att_impl_type", {"GQA"}},
                 {"sink", {false}},
                 {"use_mfa", {false}},
                 {"mlp_bias", {false}},
                 {"use_bidirectional_attention", {false}}},
      .read = read,
      .write = write,
      .adapt_names = adapt_names,
      .silent = {"need_fp32_gate", "max_seq_len", "mtp_layer_types", "mtp_mlp_layer_types",
                 "num_mtp_layers"},
  };
  return family;
}

}  // namespace qianli::model
