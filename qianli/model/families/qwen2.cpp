#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {}, spec);
  read_qwen_window(config, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  write_qwen_window(spec, config);
}

}  // namespace

const Family& qwen2_family() {
  static const Family family{
      .model_type = "qwen2",
      .architecture = "Qwen2ForCausalLM",
      .traits = {.family = "qwen2", .qkv_bias = true},
      .names = decoder_names(),
      .keys = decoder_keys({.key_value_heads = 32, .max_positions = 32768}),
      .guards = {{"attention_bias", {true}}, {"qkv_bias", {true}}, {"mlp_bias", {false}}},
      .read = read,
      .write = write,
  };
  return family;
}

}  // namespace qianli::model
