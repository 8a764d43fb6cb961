#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {}, spec);
  spec.attention_out_bias = spec.qkv_bias;
  read_sparse_step(config, spec);
  auto window = config.contains("sliding_window") ? config.optional_integer("sliding_window")
                                                  : std::optional<int64_t>(4096);
  if (!config.flag("use_sliding_window", false)) window.reset();
  read_layer_types(config, {MixerKind::kSlidingAttention}, window, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  write_sparse_step(spec, config);
  config["use_sliding_window"] = spec.sliding_window.has_value();
  config["sliding_window"] =
      spec.sliding_window ? OrderedJson(*spec.sliding_window) : OrderedJson();
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.query_norm = "self_attn.q_norm";
  names.key_norm = "self_attn.k_norm";
  names.experts = expert_names();
  return names;
}

}  // namespace

const Family& qwen3_moe_family() {
  static const Family family{
      .model_type = "qwen3_moe",
      .architecture = "Qwen3MoeForCausalLM",
      .traits = {.family = "qwen3_moe", .qk_norm = QkNorm::kHead, .moe = MixtureOfExperts{}},
      .names = names(),
      .keys = with_keys(decoder_keys({.key_value_heads = 4, .max_positions = 32768}),
                        {{"attention_bias", "qkv_bias", false},
                         {.key = "num_experts",
                          .field = "moe.num_experts",
                          .absent = 128,
                          .also = "num_local_experts"},
                         {"num_experts_per_tok", "moe.top_k", 8},
                         {"moe_intermediate_size", "moe.ffn_hidden_size", 768},
                         {"norm_topk_prob", "moe.normalize_top_k", false},
                         {"router_aux_loss_coef", "moe.aux_loss_coeff", 0.001}}),
      .read = read,
      .write = write,
      .silent = {"output_router_logits"},
  };
  return family;
}

}  // namespace qianli::model
