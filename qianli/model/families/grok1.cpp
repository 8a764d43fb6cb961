#include <algorithm>
#include <cmath>

#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_rope(config, {}, spec);
  read_tokens(config, 1, 2, spec);
  spec.moe->ffn_hidden_size = spec.ffn_hidden_size;
  // 1 / sqrt(head size), in a rounding of its own.
  const double usual = 1.0 / std::sqrt(static_cast<double>(std::max<int64_t>(spec.head_dim, 1)));
  if (std::abs(config.number("attn_output_multiplier", usual) - usual) > 1e-6) {
    config.fail("attn_output_multiplier", "1 / sqrt(head size)");
  }
  const std::string act = config.text("hidden_act", "gelu_pytorch_tanh");
  spec.activation = act == "gelu" ? Activation::kGeluTanh  // the original's gelu is the tanh form
                                  : read_activation(config, "hidden_act", act);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["attn_output_multiplier"] = spec.attention_scale();
  config["hidden_act"] = activation_word(spec.activation);
  write_rope(spec, config);
  write_tokens(spec, config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.input_norm = "pre_attn_norm";
  names.post_attention_norm = "post_attn_norm";
  names.mlp_norm = "pre_moe_norm";
  names.post_mlp_norm = "post_moe_norm";
  names.aliases = {{"_norm.weight", "_norm.scale"}};  // of some ports
  names.qkv = {"attn.q_proj", "attn.k_proj", "attn.v_proj"};
  names.attention_out = "attn.o_proj";
  names.experts = {.router = "moe_block.gate",
                   .in = {"moe_block.experts.{e}.linear", "moe_block.experts.{e}.linear_v"},
                   .out = "moe_block.experts.{e}.linear_1"};
  return names;
}

}  // namespace

const Family& grok1_family() {
  static const Family family{
      .model_type = "grok-1",
      .architecture = "Grok1ModelForCausalLM",
      .traits = {.family = "grok-1",
                 .norm_placement = NormPlacement::kSandwich,
                 .activation = Activation::kGeluTanh,
                 .tie_word_embeddings = true,
                 .moe = MixtureOfExperts{}},
      .names = names(),
      .keys = with_keys(decoder_keys({.max_positions = 8192, .norm_eps = 1e-5, .tie = true}),
                        {{"max_attn_value", "attention_softcap", 30.0},
                         {"embedding_multiplier_scale", "embedding_multiplier", 1.0},
                         {"output_multiplier_scale", "logits_multiplier", 1.0},
                         {.key = "num_experts",
                          .field = "moe.num_experts",
                          .absent = 8,
                          .also = "num_local_experts"},
                         {"num_experts_per_tok", "moe.top_k", 2},
                         {"router_aux_loss_coef", "moe.aux_loss_coeff", 0.001}}),
      .read = read,
      .write = write,
      .silent = {"output_router_logits"},
  };
  return family;
}

}  // namespace qianli::model
