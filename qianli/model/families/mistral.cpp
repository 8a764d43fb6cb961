#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 1, .eos_token_id = 2}, spec);
  read_layer_types(config, {MixerKind::kSlidingAttention}, spec.sliding_window, spec);
}

}  // namespace

const Family& mistral_family() {
  static const Family family{
      .model_type = "mistral",
      .architecture = "MistralForCausalLM",
      .traits = {.family = "mistral"},
      .names = decoder_names(),
      .keys = with_keys(decoder_keys({.key_value_heads = 8, .max_positions = 131072}),
                        {{"sliding_window", "sliding_window", 4096}}),
      .guards = {{"attention_bias", {false}}, {"mlp_bias", {false}}},
      .read = read,
      .write = write_decoder,
  };
  return family;
}

}  // namespace qianli::model
