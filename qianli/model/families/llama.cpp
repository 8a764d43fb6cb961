#include "qianli/model/families/decoder.h"
#include "qianli/model/families/families.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.max_positions = 2048, .bos_token_id = 1, .eos_token_id = 2}, spec);
  spec.qkv_bias = config.flag("attention_bias", false);
  spec.attention_out_bias = spec.qkv_bias;
  spec.mlp_bias = config.flag("mlp_bias", false);
  check_layer_types(config, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  config["attention_bias"] = spec.qkv_bias;
  config["mlp_bias"] = spec.mlp_bias;
}

}  // namespace

const Family& llama_family() {
  static const Family family{
      .model_type = "llama",
      .architecture = "LlamaForCausalLM",
      .traits = {.family = "llama"},
      .names = decoder_names(),
      .guards = {{"sliding_window", {}}, {"qk_norm", {false}}, {"use_qk_norm", {false}}},
      .read = read,
      .write = write,
  };
  return family;
}

}  // namespace qianli::model
