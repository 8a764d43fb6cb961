#include "qianli/model/families/decoder.h"
#include "qianli/model/families/families.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(
      config, {.key_value_heads = 8, .max_positions = 131072, .bos_token_id = 1, .eos_token_id = 2},
      spec);
  spec.sliding_window = config.contains("sliding_window")
                            ? config.optional_integer("sliding_window")
                            : std::optional<int64_t>(4096);
  check_layer_types(config, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  config["sliding_window"] =
      spec.sliding_window ? OrderedJson(*spec.sliding_window) : OrderedJson();
}

}  // namespace

const Family& mistral_family() {
  static const Family family{
      .model_type = "mistral",
      .architecture = "MistralForCausalLM",
      .traits = {.family = "mistral"},
      .names = decoder_names(),
      .guards = {{"attention_bias", {false}}, {"mlp_bias", {false}}},
      .read = read,
      .write = write,
  };
  return family;
}

}  // namespace qianli::model
