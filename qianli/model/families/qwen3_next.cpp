#include <algorithm>

#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

const std::vector<Key>& moe_keys() {
  static const std::vector<Key> keys{
      {.key = "num_experts",
       .field = "moe.num_experts",
       .absent = 512,
       .also = "num_local_experts"},
      {"num_experts_per_tok", "moe.top_k", 10},
      {"moe_intermediate_size", "moe.ffn_hidden_size", 512},
      {"shared_expert_intermediate_size", "moe.shared_ffn_hidden_size", 512},
      {"norm_topk_prob", "moe.normalize_top_k", true},
      {"router_aux_loss_coef", "moe.aux_loss_coeff", 0.001}};
  return keys;
}

std::vector<MixerKind> layer_pattern(const ConfigReader& config) {
  const int64_t interval = config.integer("full_attention_interval", 4);
  if (interval < 1 || interval > 100000) {
    config.fail("full_attention_interval", "an interval between 1 and 100000");
  }
  std::vector<MixerKind> pattern(static_cast<size_t>(interval), MixerKind::kGatedDeltaNet);
  pattern.back() = MixerKind::kAttention;
  return pattern;
}

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.rope = {.fraction = 0.25}}, spec);
  spec.attention_out_bias = spec.qkv_bias;
  read_layer_types(config, layer_pattern(config), std::nullopt, spec);
  if (std::ranges::find(spec.layer_pattern, MixerKind::kGatedDeltaNet) ==
      spec.layer_pattern.end()) {
    spec.gated_delta_net.reset();
  }
  const int64_t experts = config.integer("num_local_experts", 512);
  if (config.integer("num_experts", experts) == 0) return;
  read_keys(config, moe_keys(), spec);
  spec.moe->shared_gate = spec.moe->shared_ffn_hidden_size > 0;
  read_sparse_step(config, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  config["partial_rotary_factor"] = spec.rope.fraction;
  write_layer_types(spec, config);
  config["num_experts"] = 0;
  if (!spec.moe) return;
  write_keys(spec, moe_keys(), config);
  write_sparse_step(spec, config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.ignored_prefixes = {"mtp."};  // where config.json does not speak of them
  names.query_norm = "self_attn.q_norm";
  names.key_norm = "self_attn.k_norm";
  names.experts = expert_names();
  name_shared_experts("mlp.shared_expert", names.experts);
  names.experts.shared_gate = "mlp.shared_expert_gate";
  names.delta_net = {.qkvz = "linear_attn.in_proj_qkvz",
                     .ba = "linear_attn.in_proj_ba",
                     .conv = "linear_attn.conv1d",
                     .norm = "linear_attn.norm",
                     .out = "linear_attn.out_proj",
                     .a_log = "linear_attn.A_log",
                     .dt_bias = "linear_attn.dt_bias"};
  names.mtp = {.layer = "mtp.layers.{j}.",
               .embedding_norm = "mtp.pre_fc_norm_embedding",
               .hidden_norm = "mtp.pre_fc_norm_hidden",
               .projection = "mtp.fc",
               .final_norm = "mtp.norm"};
  return names;
}

}  // namespace

const Family& qwen3_next_family() {
  static const Family family{
      .model_type = "qwen3_next",
      .architecture = "Qwen3NextForCausalLM",
      .traits = {.family = "qwen3_next",
                 .norm_zero_centered = true,
                 .qk_norm = QkNorm::kHead,
                 .rope = {.fraction = 0.25},
                 .attention_gate = AttentionGate::kElement},
      .names = names(),
      .keys =
          with_keys(decoder_keys({.key_value_heads = 2, .head_dim = 256, .max_positions = 32768}),
                    {{"attention_bias", "qkv_bias", false},
                     {"linear_num_key_heads", "gated_delta_net.num_key_heads", 16},
                     {"linear_num_value_heads", "gated_delta_net.num_value_heads", 32},
                     {"linear_key_head_dim", "gated_delta_net.key_head_dim", 128},
                     {"linear_value_head_dim", "gated_delta_net.value_head_dim", 128},
                     {"linear_conv_kernel_dim", "gated_delta_net.conv_kernel", 4},
                     {"num_nextn_predict_layers", "mtp.num_layers", 0}}),
      .others = moe_keys(),
      .read = read,
      .write = write,
      .silent = {"output_router_logits"},
  };
  return family;
}

}  // namespace qianli::model
