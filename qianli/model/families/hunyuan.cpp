#include <algorithm>

#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

// One number, or one per layer that must be the same everywhere.
int64_t one_of_layers(const ConfigReader& config, const char* key, int64_t absent) {
  if (!config.has(key)) return absent;
  const auto numbers = config.integers(key);
  if (numbers.empty() || std::ranges::count(numbers, numbers[0]) != std::ssize(numbers)) {
    config.fail(key, "one number for all layers");
  }
  return numbers[0];
}

void read_fixed_ntk(const ConfigReader& config, ModelSpec& spec) {
  spec.rope.base = config.number("rope_theta", 10000.0);
  if (!config.has("rope_scaling")) return;
  const ConfigReader options = config.child("rope_scaling");
  if (!options.has("alpha")) return read_rope(config, {}, spec);
  const std::string type = options.text("type", "dynamic");
  if (type != "dynamic") options.fail("type", "dynamic beside alpha");
  if (options.number("factor", 1.0) != 1.0) options.fail("factor", "1 beside alpha");
  spec.rope.scaling = {.kind = RopeScalingKind::kNtkAlpha, .factor = options.number("alpha")};
}

void read(const ConfigReader& config, ModelSpec& spec) {
  spec.activation = read_activation(config, "hidden_act", "silu");
  read_fixed_ntk(config, spec);
  read_tokens(config, 1, 2, spec);
  spec.attention_out_bias = spec.qkv_bias;
  spec.qk_norm = config.flag("use_qk_norm", false) ? QkNorm::kHeadAfterRotary : QkNorm::kNone;
  const int64_t share = config.integer("cla_share_factor", 1);
  spec.key_value_share_factor = config.flag("use_cla", false) ? share : 1;
  spec.moe->ffn_hidden_size = one_of_layers(config, "moe_intermediate_size", spec.ffn_hidden_size);
  spec.moe->top_k = one_of_layers(config, "moe_topk", 1);
  const int64_t shared = one_of_layers(config, "num_shared_expert", 1);
  if (shared < 0 || shared > 4096) config.fail("num_shared_expert", "0 to 4096");
  const int64_t width = spec.moe->ffn_hidden_size;
  spec.moe->shared_ffn_hidden_size = width > INT32_MAX ? width : shared * width;
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["hidden_act"] = activation_word(spec.activation);
  write_rope(spec, config);
  if (spec.rope.scaling.kind == RopeScalingKind::kNtkAlpha) {
    config["rope_scaling"] = {
        {"type", "dynamic"}, {"alpha", spec.rope.scaling.factor}, {"factor", 1.0}};
  }
  config["use_qk_norm"] = spec.qk_norm == QkNorm::kHeadAfterRotary;
  config["use_cla"] = spec.key_value_share_factor > 1;
  config["cla_share_factor"] = spec.key_value_share_factor;
  config["moe_intermediate_size"] = spec.moe->ffn_hidden_size;
  config["moe_topk"] = spec.moe->top_k;
  config["use_mixed_mlp_moe"] = spec.moe->shared_ffn_hidden_size > 0;
  config["num_shared_expert"] = spec.moe->shared_ffn_hidden_size / spec.moe->ffn_hidden_size;
  write_tokens(spec, config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.query_norm = "self_attn.query_layernorm";
  names.key_norm = "self_attn.key_layernorm";
  names.experts = expert_names();
  names.experts.router = "mlp.gate.wg";
  name_shared_experts("mlp.shared_mlp", names.experts);
  return names;
}

}  // namespace

const Family& hunyuan_family() {
  static const Family family{
      .model_type = "hunyuan",
      .architecture = "HunYuanForCausalLM",
      .traits = {.family = "hunyuan", .tie_word_embeddings = true, .moe = MixtureOfExperts{}},
      .names = names(),
      .keys = with_keys(decoder_keys({.max_positions = 2048, .norm_eps = 1e-5, .tie = true}),
                        {{"attention_bias", "qkv_bias", false},
                         {"mlp_bias", "mlp_bias", false},
                         {"attention_head_dim", "head_dim", hidden_by_heads},
                         {.key = "num_experts",
                          .field = "moe.num_experts",
                          .absent = 16,
                          .also = "num_local_experts"}}),
      .guards = {{"moe_drop_tokens", {false}}},
      .read = read,
      .write = write,
      .silent = {"capacity_factor", "moe_random_routing_dropped_token", "sep_token_id",
                 "eod_token_id", "pretraining_tp", "use_mixed_mlp_moe", "use_cla",
                 "group_limited_greedy", "moe_layer_num_skipped", "norm_topk_prob",
                 "routed_scaling_factor"},
  };
  return family;
}

}  // namespace qianli::model
