#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.rope = {.fraction = 0.5}}, spec);
  spec.qk_norm = config.flag("use_qk_norm", false) ? QkNorm::kHead : QkNorm::kNone;
  read_shared_experts(config, "n_shared_experts", 1, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  config["partial_rotary_factor"] = spec.rope.fraction;
  config["use_qk_norm"] = spec.qk_norm == QkNorm::kHead;
  write_shared_experts(spec, "n_shared_experts", config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.query_norm = "self_attn.q_norm";
  names.key_norm = "self_attn.k_norm";
  names.experts = expert_names();
  names.experts.selection_bias = "mlp.gate.e_score_correction_bias";
  name_shared_experts("mlp.shared_experts", names.experts);
  names.mtp = deepseek_mtp_names();
  return names;
}

std::vector<Key> keys() {
  auto keys =
      with_keys(decoder_keys({.key_value_heads = 8, .max_positions = 131072, .norm_eps = 1e-5}),
                deepseek_moe_keys(
                    {.experts = 128, .width = 1408, .first_k_dense = 1, .scaling_factor = 1.0}));
  return with_keys(std::move(keys), {{"attention_bias", "qkv_bias", false}, mtp_key()});
}

}  // namespace

const Family& glm4_moe_family() {
  static const Family family{
      .model_type = "glm4_moe",
      .architecture = "Glm4MoeForCausalLM",
      .traits = {.family = "glm4_moe",
                 .rope = {.fraction = 0.5},
                 .moe = MixtureOfExperts{.score = RouterScore::kSigmoid, .selection_bias = true}},
      .names = names(),
      .keys = keys(),
      .read = read,
      .write = write,
  };
  return family;
}

}  // namespace qianli::model
