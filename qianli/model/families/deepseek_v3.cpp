#include "qianli/model/families/latent.h"
#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 0, .eos_token_id = 1}, spec);
  read_latent_heads(config, spec);
  spec.attention_out_bias = spec.qkv_bias;
  read_shared_experts(config, "n_shared_experts", 1, spec);
  read_aux_loss(config, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  write_shared_experts(spec, "n_shared_experts", config);
  config["topk_method"] = "noaux_tc";
  config["scoring_func"] = "sigmoid";
  write_aux_loss(spec, config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  name_latent(names);
  names.experts = expert_names();
  names.experts.selection_bias = "mlp.gate.e_score_correction_bias";
  name_shared_experts("mlp.shared_experts", names.experts);
  names.mtp = deepseek_mtp_names();
  return names;
}

std::vector<Key> keys() {
  auto keys = with_keys(latent_keys(decoder_keys({.max_positions = 4096}), {}),
                        deepseek_moe_keys({.groups = 8, .topk_groups = 4}));
  return with_keys(std::move(keys), {{"attention_bias", "qkv_bias", false},
                                     {"rope_interleave", "rope.interleaved", true},
                                     {"moe_layer_freq", "moe.layer_frequency", 1},
                                     mtp_key()});
}

Family make(const std::string& model_type) {
  return {
      .model_type = model_type,
      .architecture = "DeepseekV3ForCausalLM",
      .traits = {.family = model_type,
                 .rope = {.interleaved = true},
                 .latent_attention = LatentAttention{},
                 .moe = MixtureOfExperts{.score = RouterScore::kSigmoid, .selection_bias = true}},
      .names = names(),
      .keys = keys(),
      .guards = {{"scoring_func", {"sigmoid"}}, {"topk_method", {"noaux_tc"}}},
      .read = read,
      .write = write,
      .silent = {"ep_size", "output_router_logits"},
  };
}

}  // namespace

const Family& deepseek_v3_family() {
  static const Family family = make("deepseek_v3");
  return family;
}

const Family& kimi_k2_family() {
  static const Family family = make("kimi_k2");
  return family;
}

}  // namespace qianli::model
