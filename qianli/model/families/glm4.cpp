#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.rope = {.fraction = 0.5}}, spec);
  if (!config.contains("eos_token_id")) spec.eos_token_ids = {151329, 151336, 151338};
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  config["partial_rotary_factor"] = spec.rope.fraction;
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.mlp_in = {"mlp.gate_up_proj"};
  names.post_attention_norm = "post_self_attn_layernorm";
  names.post_mlp_norm = "post_mlp_layernorm";
  return names;
}

}  // namespace

const Family& glm4_family() {
  static const Family family{
      .model_type = "glm4",
      .architecture = "Glm4ForCausalLM",
      .traits = {.family = "glm4",
                 .norm_placement = NormPlacement::kSandwich,
                 .rope = {.fraction = 0.5, .interleaved = true},
                 .qkv_bias = true},
      .names = names(),
      .keys = with_keys(decoder_keys({.key_value_heads = 2,
                                      .head_dim = 128,
                                      .max_positions = 131072,
                                      .norm_eps = 1.5625e-7}),
                        {{"attention_bias", "qkv_bias", true}}),
      .read = read,
      .write = write,
  };
  return family;
}

}  // namespace qianli::model
