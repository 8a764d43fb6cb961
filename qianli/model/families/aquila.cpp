#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 1, .eos_token_id = 2}, spec);
}

}  // namespace

const Family& aquila_family() {
  static const Family family{
      .model_type = "aquila",
      .architecture = "AquilaModel",
      .traits = {.family = "aquila"},
      .names = decoder_names(),
      .keys = decoder_keys({.max_positions = 2048}),
      .guards = {{"attention_bias", {false}}, {"mlp_bias", {false}}, {"sliding_window", {}}},
      .read = read,
      .write = write_decoder,
  };
  return family;
}

}  // namespace qianli::model
