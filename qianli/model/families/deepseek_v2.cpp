#include "qianli/model/families/latent.h"
#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

// "greedy" takes the best experts, "group_limited_greedy" those of the best groups.
void read_groups(const ConfigReader& config, ModelSpec& spec) {
  const std::string method = config.text("topk_method", "greedy");
  if (method == "greedy") {
    spec.moe->num_groups = spec.moe->topk_groups = 1;
  } else if (method != "group_limited_greedy") {
    config.fail("topk_method", "greedy or group_limited_greedy");
  }
}

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 1, .eos_token_id = 2}, spec);
  read_latent_heads(config, spec);
  spec.attention_out_bias = spec.qkv_bias;
  read_shared_experts(config, "n_shared_experts", 2, spec);
  read_groups(config, spec);
  read_aux_loss(config, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  write_shared_experts(spec, "n_shared_experts", config);
  const bool groups = spec.moe->num_groups > 1;
  config["topk_method"] = groups ? "group_limited_greedy" : "greedy";
  config["scoring_func"] = "softmax";
  write_aux_loss(spec, config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  name_latent(names);
  names.experts = expert_names();
  name_shared_experts("mlp.shared_experts", names.experts);
  return names;
}

std::vector<Key> keys() {
  auto keys = with_keys(latent_keys(decoder_keys({.max_positions = 2048}), {}),
                        deepseek_moe_keys({.experts = 64,
                                           .width = 1407,
                                           .first_k_dense = 0,
                                           .scaling_factor = 1.0,
                                           .normalize = false}));
  return with_keys(std::move(keys), {{"attention_bias", "qkv_bias", false},
                                     {"mlp_bias", "mlp_bias", false},
                                     {"moe_layer_freq", "moe.layer_frequency", 1}});
}

}  // namespace

const Family& deepseek_v2_family() {
  static const Family family{
      .model_type = "deepseek_v2",
      .architecture = "DeepseekV2ForCausalLM",
      .traits = {.family = "deepseek_v2",
                 .rope = {.interleaved = true},
                 .latent_attention = LatentAttention{},
                 .moe = MixtureOfExperts{.group_score = GroupScore::kMax}},
      .names = names(),
      .keys = keys(),
      .guards = {{"scoring_func", {"softmax"}}, {"norm_topk_prob", {false}}},
      .read = read,
      .write = write,
      .silent = {"ep_size", "output_router_logits"},
  };
  return family;
}

}  // namespace qianli::model
