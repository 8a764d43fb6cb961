#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {}, spec);
  spec.attention_out_bias = spec.qkv_bias;
  read_qwen_window(config, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  write_qwen_window(spec, config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.query_norm = "self_attn.q_norm";
  names.key_norm = "self_attn.k_norm";
  return names;
}

}  // namespace

const Family& qwen3_family() {
  static const Family family{
      .model_type = "qwen3",
      .architecture = "Qwen3ForCausalLM",
      .traits = {.family = "qwen3", .qk_norm = QkNorm::kHead},
      .names = names(),
      .keys =
          with_keys(decoder_keys({.key_value_heads = 32, .head_dim = 128, .max_positions = 32768}),
                    {{"attention_bias", "qkv_bias", false}}),
      .guards = {{"mlp_bias", {false}}},
      .read = read,
      .write = write,
  };
  return family;
}

}  // namespace qianli::model
