#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 1, .eos_token_id = 2}, spec);
  spec.attention_out_bias = spec.qkv_bias;
}

ForeignNames names() {
  return {
      .optional_prefix = "model.",
      .embedding = "model.tok_embeddings",
      .layer = "model.layers.{l}.",
      .input_norm = "attention_norm",
      .qkv = {"attention.wqkv"},
      .qkv_order = QkvOrder::kByGroup,
      .attention_out = "attention.wo",
      .mlp_norm = "ffn_norm",
      .mlp_in = {"feed_forward.w1", "feed_forward.w3"},
      .mlp_out = "feed_forward.w2",
      .final_norm = "model.norm",
      .output = "output",
  };
}

}  // namespace

const Family& internlm2_family() {
  static const Family family{
      .model_type = "internlm2",
      .architecture = "InternLM2ForCausalLM",
      .traits = {.family = "internlm2"},
      .names = names(),
      .keys = with_keys(decoder_keys({.max_positions = 2048}), {{"bias", "qkv_bias", true}}),
      .read = read,
      .write = write_decoder,
      .silent = {"attn_implementation"},
  };
  return family;
}

}  // namespace qianli::model
