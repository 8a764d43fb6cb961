#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 1, .eos_token_id = 2}, spec);
  spec.attention_out_bias = spec.qkv_bias;
  if (!config.has("rotary")) return;
  const ConfigReader rotary = config.child("rotary");
  spec.rope.base = rotary.number("base", 10000.0);
  const std::string type = rotary.text("type", "origin");
  if (type == "dynamic") {
    spec.rope.scaling = {.kind = RopeScalingKind::kDynamic,
                         .factor = rotary.number("scaling_factor", 1.0)};
  } else if (type != "origin") {
    rotary.fail("type", "origin or dynamic");
  }
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["hidden_act"] = activation_word(spec.activation);
  const bool dynamic = spec.rope.scaling.kind == RopeScalingKind::kDynamic;
  config["rotary"] = {{"base", spec.rope.base}, {"type", dynamic ? "dynamic" : "origin"}};
  if (dynamic) config["rotary"]["scaling_factor"] = spec.rope.scaling.factor;
  if (!dynamic) write_rope(spec, config);
  write_tokens(spec, config);
}

}  // namespace

const Family& internlm_family() {
  static const Family family{
      .model_type = "internlm",
      .architecture = "InternLMForCausalLM",
      .traits = {.family = "internlm", .qkv_bias = true, .attention_out_bias = true},
      .names = decoder_names(),
      .keys = with_keys(decoder_keys({.max_positions = 2048}), {{"bias", "qkv_bias", true}}),
      .read = read,
      .write = write,
  };
  return family;
}

}  // namespace qianli::model
