#include "qianli/model/families/latent.h"
#include "qianli/model/families/mu_scaling.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 1, .eos_token_id = 2}, spec);
  read_latent_heads(config, spec);
  spec.attention_out_bias = spec.qkv_bias;
  read_mu_scaling(config, {.embedding = 12, .depth = 1.4, .base_size = 256}, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  write_mu_scaling(spec, config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  name_latent(names);
  return names;
}

std::vector<Key> keys() {
  auto keys = latent_keys(
      decoder_keys({.max_positions = 32768, .norm_eps = 1e-5, .tie = true}),
      {.q_lora_rank = 768, .kv_lora_rank = 256, .nope = 64, .rope = 32, .v_head_dim = 64});
  return with_keys(std::move(keys), {{"attention_bias", "qkv_bias", false},
                                     {"mlp_bias", "mlp_bias", false},
                                     {"initializer_range", "init_std", 0.1}});
}

}  // namespace

const Family& minicpm3_family() {
  static const Family family{
      .model_type = "minicpm3",
      .architecture = "MiniCPM3ForCausalLM",
      .traits = {.family = "minicpm3",
                 .tie_word_embeddings = true,
                 .latent_attention = LatentAttention{}},
      .names = names(),
      .keys = keys(),
      .read = read,
      .write = write,
  };
  return family;
}

}  // namespace qianli::model
