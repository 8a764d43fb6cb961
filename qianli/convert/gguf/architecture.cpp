#include "qianli/convert/gguf/architecture.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "qianli/base/error.h"

namespace qianli::convert {
namespace {

using model::MixerKind;
using model::ModelSpec;

std::vector<GgufArchitecture> make_architectures() {
  return {
      {.name = "llama",
       .families = {"llama", "mistral", "mixtral", "aquila", "internlm", "internlm3"},
       .paired_rows = true},
      {.name = "baichuan", .families = {"baichuan"}, .paired_rows = true},
      {.name = "internlm2", .families = {"internlm2"}, .paired_rows = true},
      {.name = "minicpm", .families = {"minicpm"}, .paired_rows = true},
      {.name = "minicpm3", .families = {"minicpm3"}},
      {.name = "plm", .families = {"plm"}},
      {.name = "gpt2", .families = {"gpt2"}, .fused_qkv = true},
      {.name = "starcoder", .families = {"gpt_bigcode"}, .fused_qkv = true},
      {.name = "starcoder2", .families = {"starcoder2"}},
      {.name = "bloom", .families = {"bloom"}, .fused_qkv = true},
      {.name = "falcon", .families = {"falcon"}, .fused_qkv = true},
      {.name = "qwen", .families = {"qwen"}, .fused_qkv = true, .feed_forward_factor = 2},
      {.name = "qwen2", .families = {"qwen2"}},
      {.name = "qwen2moe", .families = {"qwen2_moe"}},
      {.name = "qwen3", .families = {"qwen3"}},
      {.name = "qwen3moe", .families = {"qwen3_moe"}},
      {.name = "qwen3next",
       .families = {"qwen3_next"},
       .norms_plus_one = true,
       .mlp_norm = "post_attention_norm"},
      {.name = "gemma", .families = {"gemma"}, .norms_plus_one = true},
      {.name = "gemma2", .families = {"gemma2"}, .norms_plus_one = true, .window_period = 2},
      {.name = "gemma3", .families = {"gemma3_text"}, .norms_plus_one = true, .window_period = 6},
      {.name = "phi3",
       .families = {"phi3"},
       .fused_qkv = true,
       .fused_gate = true,
       .window_period = 0},
      {.name = "phimoe", .families = {"phimoe"}},
      {.name = "chatglm", .families = {"chatglm"}, .fused_qkv = true, .fused_gate = true},
      {.name = "chatglm", .families = {"glm"}, .fused_gate = true},
      {.name = "glm4", .families = {"glm4"}, .fused_gate = true},
      {.name = "glm4moe",
       .families = {"glm4_moe"},
       .heads_ahead = true,
       .mlp_norm = "post_attention_norm"},
      {.name = "glm-dsa", .families = {"glm_moe_dsa"}, .split_latent = true, .heads_ahead = true},
      {.name = "command-r", .families = {"cohere"}},
      {.name = "cohere2", .families = {"cohere2"}, .window_period = 4},
      {.name = "dbrx", .families = {"dbrx"}, .fused_qkv = true, .mlp_norm = "attn_output_norm"},
      {.name = "grok",
       .families = {"grok-1"},
       .post_attention_norm = "attn_output_norm",
       .post_mlp_norm = "layer_output_norm"},
      {.name = "deepseek2",
       .families = {"deepseek_v2", "deepseek_v3", "kimi_k2"},
       .split_latent = true},
      {.name = "mamba2", .families = {"mamba2"}},
      {.name = "hunyuan-moe", .families = {"hunyuan_v1_moe"}},
      {.name = "bailingmoe2",
       .families = {"bailing_moe_v2", "bailing_moe"},
       .fused_qkv = true,
       .output_norm_of_layers = true,
       .heads_ahead = true},
      {.name = "gpt-oss",
       .families = {"gpt_oss"},
       .mlp_norm = "post_attention_norm",
       .window_period = 2},
      {.name = "seed_oss", .families = {"seed_oss"}, .mlp_norm = "post_attention_norm"},
      {.name = "minimax-m2", .families = {"minimax_m2"}},
      {.name = "step35", .families = {"step3p5"}, .norms_plus_one = true, .lists_per_layer = true},
  };
}

// The base of a fixed stretch (NTK by alpha) for every length.
void fold_stretch(ModelSpec& spec) {
  model::Rope& rope = spec.rope;
  if (rope.scaling.kind != model::RopeScalingKind::kNtkAlpha) return;
  const auto r = static_cast<double>(spec.rotary_size(rope));
  rope.base *= std::pow(rope.scaling.factor, r / (r - 2));
  rope.scaling = {};
}

// Patterns that give the same layers become the same; a window that no layer has is none.
void settle_pattern(ModelSpec& spec) {
  std::vector<MixerKind> kinds;
  for (int64_t l = 0; l < spec.num_layers; ++l) kinds.push_back(spec.layer(l).mixer);
  const auto slides = [](MixerKind kind) { return kind == MixerKind::kSlidingAttention; };
  if (std::ranges::none_of(kinds, slides)) spec.sliding_window.reset();
  spec.layer_pattern = std::move(kinds);
  const bool follows = std::ranges::all_of(spec.layer_pattern, [&](MixerKind kind) {
    return kind == (spec.sliding_window ? MixerKind::kSlidingAttention : MixerKind::kAttention);
  });
  if (follows) spec.layer_pattern.clear();
}

// Limits as lists for all layers: both, or neither.
void spread_limits(ModelSpec& spec) {
  std::vector<double> limits, of_experts;
  bool any = false;
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    const model::LayerSpec layer = spec.layer(l);
    limits.push_back(layer.activation_limit);
    of_experts.push_back(layer.expert_activation_limit);
    any = any || layer.activation_limit != 0 || layer.expert_activation_limit != 0;
  }
  spec.activation_limit = any ? limits : std::vector<double>{};
  if (spec.moe) spec.moe->activation_limit = any ? of_experts : std::vector<double>{};
}

// Mixtures by the layers that have none.
void list_dense_layers(ModelSpec& spec) {
  if (!spec.moe) return;
  std::vector<int64_t> dense;
  int64_t leading = 0;
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    if (spec.layer(l).feed_forward == model::FeedForwardKind::kMoe) continue;
    if (l == leading) {
      ++leading;
    } else {
      dense.push_back(l);
    }
  }
  spec.moe->first_k_dense = leading;
  spec.moe->dense_layers = std::move(dense);
  spec.moe->layer_frequency = 1;
  spec.moe->layer_offset = 0;
}

}  // namespace

std::span<const GgufArchitecture> gguf_architectures() {
  static const std::vector<GgufArchitecture> architectures = make_architectures();
  return architectures;
}

const GgufArchitecture& gguf_architecture_of(const ModelSpec& spec) {
  for (const GgufArchitecture& architecture : gguf_architectures()) {
    if (std::ranges::find(architecture.families, spec.family) != architecture.families.end()) {
      return architecture;
    }
  }
  throw ConfigError(
      "convert",
      fmt::format("expected a family whose GGUF architecture is known here, got {}", spec.family));
}

ModelSpec as_gguf_tells(const ModelSpec& spec, const GgufArchitecture& architecture) {
  ModelSpec told = spec;
  fold_stretch(told);
  settle_pattern(told);
  if (!architecture.has_windows() && told.sliding_window) {
    for (MixerKind& kind : told.layer_pattern) {
      if (kind == MixerKind::kSlidingAttention) kind = MixerKind::kAttention;
    }
    told.sliding_window.reset();
    settle_pattern(told);
  }
  if (architecture.lists_per_layer) {
    spread_limits(told);
    list_dense_layers(told);
  }
  if (!architecture.heads_ahead) told.mtp.num_layers = 0;
  if (told.latent_attention && architecture.split_latent) {
    told.num_query_groups = told.num_attention_heads;
  }
  return told;
}

}  // namespace qianli::convert
