#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 1, .eos_token_id = 2}, spec);
  spec.mlp_bias = spec.attention_out_bias;
}

}  // namespace

const Family& internlm3_family() {
  static const Family family{
      .model_type = "internlm3",
      .architecture = "InternLM3ForCausalLM",
      .traits = {.family = "internlm3"},
      .names = decoder_names(),
      .keys = with_keys(decoder_keys({.max_positions = 32768}),
                        {{"qkv_bias", "qkv_bias", false}, {"bias", "attention_out_bias", false}}),
      .read = read,
      .write = write_decoder,
      .silent = {"attn_implementation"},
  };
  return family;
}

}  // namespace qianli::model
