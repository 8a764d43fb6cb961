#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 1, .eos_token_id = 2}, spec);
  spec.attention_out_bias = spec.qkv_bias;
  read_layer_types(config, {}, std::nullopt, spec);
}

}  // namespace

const Family& llama_family() {
  static const Family family{
      .model_type = "llama",
      .architecture = "LlamaForCausalLM",
      .traits = {.family = "llama"},
      .names = decoder_names(),
      .keys = with_keys(decoder_keys({.max_positions = 2048}),
                        {{"attention_bias", "qkv_bias", false}, {"mlp_bias", "mlp_bias", false}}),
      .guards = {{"sliding_window", {}}, {"qk_norm", {false}}, {"use_qk_norm", {false}}},
      .read = read,
      .write = write_decoder,
  };
  return family;
}

}  // namespace qianli::model
