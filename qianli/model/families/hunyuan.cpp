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

// A fixed stretch of the base, `alpha`, stands under the word of the dynamic one.
void read_fixed_ntk(const ConfigReader& config, ModelSpec& spec) {
  spec.rope.base = config.number("rope_theta", 10000.0);
  const char* key = config.has("rope_scaling") ? "rope_scaling" : "rope_parameters";
  if (!config.has(key)) return;
  const ConfigReader options = config.child(key);
  if (!options.has("alpha")) return read_rope(config, {}, spec);
  const std::string type = options.text("rope_type", options.text("type", "dynamic"));
  if (type != "dynamic") options.fail(options.has("type") ? "type" : "rope_type", "dynamic");
  if (options.number("factor", 1.0) != 1.0) options.fail("factor", "1 beside alpha");
  spec.rope.base = options.number("rope_theta", spec.rope.base);
  spec.rope.scaling = {.kind = RopeScalingKind::kNtkAlpha, .factor = options.number("alpha")};
}

void write_fixed_ntk(const ModelSpec& spec, OrderedJson& config) {
  write_rope(spec, config);
  if (spec.rope.scaling.kind != RopeScalingKind::kNtkAlpha) return;
  config["rope_scaling"] = {
      {"type", "dynamic"}, {"alpha", spec.rope.scaling.factor}, {"factor", 1.0}};
}

// The smaller sibling that transformers builds: shared experts as wide as the others, weights of
// the chosen experts add up to 1.
void read_v1(const ConfigReader& config, ModelSpec& spec) {
  spec.activation = read_activation(config, "hidden_act", "silu");
  read_fixed_ntk(config, spec);
  read_tokens(config, 1, 2, spec);
  spec.attention_out_bias = spec.qkv_bias;
  spec.moe->num_experts = one_of_layers(config, "num_experts", 1);
  spec.moe->top_k = one_of_layers(config, "moe_topk", 1);
  spec.moe->ffn_hidden_size = spec.moe->shared_ffn_hidden_size = spec.ffn_hidden_size;
}

void write_v1(const ModelSpec& spec, OrderedJson& config) {
  config["hidden_act"] = activation_word(spec.activation);
  write_fixed_ntk(spec, config);
  config["num_experts"] = spec.moe->num_experts;
  config["moe_topk"] = spec.moe->top_k;
  write_tokens(spec, config);
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
  write_fixed_ntk(spec, config);
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
                         {.key = "attention_head_dim",
                          .field = "head_dim",
                          .absent = hidden_by_heads,
                          .also = "head_dim"},
                         {.key = "num_experts",
                          .field = "moe.num_experts",
                          .absent = 16,
                          .also = "num_local_experts"}}),
      .guards = {{"moe_drop_tokens", {false}},
                 {"group_limited_greedy", {false}},
                 {"moe_layer_num_skipped", {0}},
                 {"norm_topk_prob", {false}},
                 {"routed_scaling_factor", {1.0, false}}},
      .read = read,
      .write = write,
      .silent = {"capacity_factor", "moe_random_routing_dropped_token", "sep_token_id",
                 "eod_token_id", "pretraining_tp", "use_mixed_mlp_moe", "use_cla"},
  };
  return family;
}

const Family& hunyuan_v1_moe_family() {
  static const Family family{
      .model_type = "hunyuan_v1_moe",
      .architecture = "HunYuanMoEV1ForCausalLM",
      .traits = {.family = "hunyuan_v1_moe",
                 .qk_norm = QkNorm::kHeadAfterRotary,
                 .moe = MixtureOfExperts{.normalize_top_k = true}},
      .names = names(),
      .keys = with_keys(decoder_keys({.max_positions = 2048, .norm_eps = 1e-5}),
                        {{"attention_bias", "qkv_bias", false}}),
      .others = {{"num_experts", "moe.num_experts"}, {"moe_topk", "moe.top_k"}},
      .read = read_v1,
      .write = write_v1,
      .silent = {"sep_token_id", "eod_token_id", "pretraining_tp"},
  };
  return family;
}

}  // namespace qianli::model
