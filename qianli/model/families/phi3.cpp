#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config,
               {.bos_token_id = 1,
                .eos_token_id = 32000,
                .rope = {.fraction = 1.0, .original_max_positions = 4096}},
               spec);
  const RopeScalingKind kind = spec.rope.scaling.kind;
  if (kind != RopeScalingKind::kNone && kind != RopeScalingKind::kLongrope) {
    config.fail(config.has("rope_scaling") ? "rope_scaling" : "rope_parameters",
                "rope_type default or longrope for this family");
  }
  read_layer_types(config, {MixerKind::kSlidingAttention}, spec.sliding_window, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  if (spec.rope.scaling.kind != RopeScalingKind::kLongrope) return;
  config["original_max_position_embeddings"] = spec.rope.scaling.original_max_positions;
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.qkv = {"self_attn.qkv_proj"};
  names.mlp_in = {"mlp.gate_up_proj"};
  return names;
}

}  // namespace

const Family& phi3_family() {
  static const Family family{
      .model_type = "phi3",
      .architecture = "Phi3ForCausalLM",
      .traits = {.family = "phi3"},
      .names = names(),
      .keys = with_keys(decoder_keys({.max_positions = 4096, .norm_eps = 1e-5}),
                        {{"sliding_window", "sliding_window", nullptr}}),
      .guards = {{"attention_bias", {false}}},
      .read = read,
      .write = write,
      .silent = {"embd_layer", "auto_map", "full_attn_mod", "interpolate_factor"},
  };
  return family;
}

}  // namespace qianli::model
