#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 0, .eos_token_id = 2}, spec);
}

}  // namespace

const Family& seed_oss_family() {
  static const Family family{
      .model_type = "seed_oss",
      .architecture = "SeedOssForCausalLM",
      .traits = {.family = "seed_oss", .qkv_bias = true},
      .names = decoder_names(),
      .keys =
          with_keys(decoder_keys({.key_value_heads = 8, .head_dim = 128, .max_positions = 524288}),
                    {{"attention_bias", "qkv_bias", true},
                     {"attention_out_bias", "attention_out_bias", false},
                     {"mlp_bias", "mlp_bias", false}}),
      .read = read,
      .write = write_decoder,
      .silent = {"residual_dropout"},
  };
  return family;
}

}  // namespace qianli::model
