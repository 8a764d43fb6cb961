#include "qianli/model/families/latent.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config,
               {.bos_token_id = std::nullopt,
                .eos_token_id = std::nullopt,
                .rope = {.base = 100000.0},
                .activation = "relu2"},
               spec);
  read_latent_heads(config, spec);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  name_latent(names);
  names.mlp_in = {"mlp.up_proj"};
  return names;
}

}  // namespace

const Family& plm_family() {
  static const Family family{
      .model_type = "plm",
      .architecture = "PLMForCausalLM",
      .traits = {.family = "plm",
                 .rope = {.base = 100000.0, .interleaved = true},
                 .gated_mlp = false,
                 .activation = Activation::kRelu2,
                 .tie_word_embeddings = true,
                 .latent_attention = LatentAttention{}},
      .names = names(),
      .keys = latent_keys(decoder_keys({.max_positions = 4096, .tie = true}),
                          {.q_lora_rank = std::nullopt}),
      .guards = {{"attention_bias", {false}}},
      .read = read,
      .write = write_decoder,
  };
  return family;
}

}  // namespace qianli::model
