#include <algorithm>

#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

// Every other one of the first max_window_layers has the window.
std::vector<MixerKind> window_pattern(const ConfigReader& config, const ModelSpec& spec) {
  const int64_t first = config.integer("max_window_layers", 28);
  if (spec.num_layers < 1 || spec.num_layers > 100000) return {};  // refused by validate()
  std::vector<MixerKind> pattern(static_cast<size_t>(spec.num_layers), MixerKind::kAttention);
  for (int64_t l = 0; l < std::min(first, spec.num_layers); l += 2) {
    pattern[static_cast<size_t>(l)] = MixerKind::kSlidingAttention;
  }
  return pattern;
}

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {}, spec);
  read_sparse_step(config, spec);
  auto window = config.contains("sliding_window") ? config.optional_integer("sliding_window")
                                                  : std::optional<int64_t>(4096);
  if (!config.flag("use_sliding_window", false)) window.reset();
  read_layer_types(config, window_pattern(config, spec), window, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  write_sparse_step(spec, config);
  config["use_sliding_window"] = spec.sliding_window.has_value();
  if (spec.sliding_window) {
    config["sliding_window"] = *spec.sliding_window;
    write_layer_types(spec, config);
  }
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.experts = expert_names();
  name_shared_experts("mlp.shared_expert", names.experts);
  names.experts.shared_gate = "mlp.shared_expert_gate";
  return names;
}

}  // namespace

const Family& qwen2_moe_family() {
  static const Family family{
      .model_type = "qwen2_moe",
      .architecture = "Qwen2MoeForCausalLM",
      .traits = {.family = "qwen2_moe", .moe = MixtureOfExperts{.shared_gate = true}},
      .names = names(),
      .keys = with_keys(decoder_keys({.key_value_heads = 16, .max_positions = 32768}),
                        {{"qkv_bias", "qkv_bias", true},
                         {.key = "num_experts",
                          .field = "moe.num_experts",
                          .absent = 60,
                          .also = "num_local_experts"},
                         {"num_experts_per_tok", "moe.top_k", 4},
                         {"moe_intermediate_size", "moe.ffn_hidden_size", 1408},
                         {"shared_expert_intermediate_size", "moe.shared_ffn_hidden_size", 5632},
                         {"norm_topk_prob", "moe.normalize_top_k", false},
                         {"router_aux_loss_coef", "moe.aux_loss_coeff", 0.001}}),
      .read = read,
      .write = write,
      .silent = {"output_router_logits"},
  };
  return family;
}

}  // namespace qianli::model
