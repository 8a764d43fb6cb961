#include <cmath>

#include "qianli/model/families/latent.h"
#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

// Two of our layers are one of the file's, which counts its own.
void read(const ConfigReader& config, ModelSpec& spec) {
  const int64_t layers = config.integer("num_layers", 28);
  if (layers < 1 || layers > 100000) config.fail("num_layers", "a number between 1 and 100000");
  spec.num_layers = 2 * layers;
  if (config.integer("num_hidden_layers", spec.num_layers) != spec.num_layers) {
    config.fail("num_hidden_layers", "twice num_layers");
  }
  read_decoder(config, {.bos_token_id = 1, .eos_token_id = 2, .rope = {.base = 1e7}}, spec);
  read_latent_heads(config, spec);
  spec.attention_out_bias = spec.qkv_bias;
  LatentAttention& mla = *spec.latent_attention;
  const auto scale = [&](int64_t rank) {
    return std::sqrt(static_cast<double>(spec.hidden_size) / static_cast<double>(rank));
  };
  const bool sized =
      spec.hidden_size > 0 && mla.q_lora_rank.value_or(1) > 0 && mla.kv_lora_rank > 0;
  if (!sized) return;  // refused by validate()
  if (mla.q_lora_rank) mla.q_lora_scale = scale(*mla.q_lora_rank);
  mla.kv_lora_scale = scale(mla.kv_lora_rank);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["num_layers"] = spec.num_layers / 2;
  config["num_hidden_layers"] = spec.num_layers;
  write_decoder(spec, config);
  config["head_dim"] = spec.latent_attention->qk_rope_head_dim;  // transformers' rotary size
  config["mla_scale_q_lora"] = true;
  config["mla_scale_kv_lora"] = true;
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  name_latent(names);
  names.own_layers = 2;
  names.ignored_prefixes = {"model.mtp."};
  for (std::string* name :
       {&names.latent.query, &names.latent.query_down, &names.latent.query_norm,
        &names.latent.query_up, &names.latent.key_value_down, &names.latent.key_value_norm,
        &names.latent.key_value_up, &names.attention_out}) {
    name->replace(0, 9, "self_attn.{half}");
  }
  names.input_norm = "input_layernorm.{half}";
  names.mlp_norm = "post_attention_layernorm.{half}";
  names.mlp_in = {"mlps.{half}.gate_proj", "mlps.{half}.up_proj"};
  names.mlp_out = "mlps.{half}.down_proj";
  names.experts = expert_names();
  names.experts.router = "mlp.router.classifier";
  names.experts.selection_bias = "mlp.router.e_score_correction_bias";
  return names;
}

std::vector<Key> keys() {
  auto keys = latent_keys(decoder_keys({.max_positions = 131072, .norm_eps = 1e-5}), {});
  return with_keys(without_key(std::move(keys), "num_hidden_layers"),
                   {{"ffn_hidden_size", "ffn_hidden_size", 12288},
                    {"attention_bias", "qkv_bias", false},
                    {"n_routed_experts", "moe.num_experts", 512},
                    {"zero_expert_num", "moe.num_zero_experts", 256, Fallback(0)},
                    {"moe_topk", "moe.top_k", 12},
                    {"expert_ffn_hidden_size", "moe.ffn_hidden_size", 2048},
                    {"routed_scaling_factor", "moe.scaling_factor", 6.0}});
}

}  // namespace

const Family& longcat_flash_family() {
  static const Family family{
      .model_type = "longcat_flash",
      .architecture = "LongcatFlashForCausalLM",
      .traits = {.family = "longcat_flash",
                 .rope = {.base = 1e7, .interleaved = true},
                 .latent_attention = LatentAttention{},
                 .moe = MixtureOfExperts{.selection_bias = true, .shortcut = true}},
      .names = names(),
      .keys = keys(),
      .guards = {{"mla_scale_q_lora", {true}},
                 {"mla_scale_kv_lora", {true}},
                 {"zero_expert_type", {"identity"}},
                 {"router_bias", {false}},
                 {"norm_topk_prob", {false}},
                 {"attention_method", {"MLA"}}},
      .read = read,
      .write = write,
      .silent = {"num_nextn_predict_layers", "router_dtype", "intermediate_size"},
  };
  return family;
}

}  // namespace qianli::model
