#include "qianli/model/families/moe.h"
#include "qianli/model/families/mu_scaling.h"

namespace qianli::model {
namespace {

const std::vector<Key>& moe_keys() {
  static const std::vector<Key> keys{
      {.key = "num_experts", .field = "moe.num_experts", .absent = 0, .also = "num_local_experts"},
      {"num_experts_per_tok", "moe.top_k", 2},
      {"router_aux_loss_coef", "moe.aux_loss_coeff", 0.0}};
  return keys;
}

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 1, .eos_token_id = 2}, spec);
  spec.attention_out_bias = spec.qkv_bias;
  read_mu_scaling(config, {}, spec);
  if (config.integer("num_experts", 0) == 0) return;
  read_keys(config, moe_keys(), spec);
  spec.moe->ffn_hidden_size = spec.ffn_hidden_size;
  spec.moe->normalize_top_k = true;
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  write_mu_scaling(spec, config);
  write_keys(spec, moe_keys(), config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.experts = {.router = "mlp.gate",
                   .in = {"mlp.experts.{e}.w1", "mlp.experts.{e}.w3"},
                   .out = "mlp.experts.{e}.w2"};
  return names;
}

}  // namespace

const Family& minicpm_family() {
  static const Family family{
      .model_type = "minicpm",
      .architecture = "MiniCPMForCausalLM",
      .traits = {.family = "minicpm", .tie_word_embeddings = true},
      .names = names(),
      .keys = with_keys(decoder_keys({.max_positions = 2048, .tie = true}),
                        {{"attention_bias", "qkv_bias", false}}),
      .others = moe_keys(),
      .read = read,
      .write = write,
  };
  return family;
}

}  // namespace qianli::model
