#include "qianli/convert/gguf/assumptions.h"

#include <fmt/core.h>

#include <cmath>

namespace qianli::convert {
namespace {

using model::ModelSpec;

bool close(double a, double b) { return std::abs(a - b) <= 1e-6 * std::abs(b); }

// Its Gemma 2 and 3 divide scores by the root of the head's size, the largest ones, known by their
// layers, by that of the width that a head has in the stream.
double gemma_scalar(const ModelSpec& spec) {
  const int64_t largest = spec.family == "gemma2" ? 46 : 62;
  if (spec.num_layers != largest) return static_cast<double>(spec.head_dim);
  return static_cast<double>(spec.hidden_size / spec.num_attention_heads);
}

}  // namespace

std::vector<std::string> missed_assumptions(const ModelSpec& spec,
                                            const GgufArchitecture& architecture) {
  std::vector<std::string> missed;
  const auto unless = [&](bool met, std::string sentence) {
    if (!met) missed.push_back(std::move(sentence));
  };
  const std::string& family = spec.family;
  if (spec.sliding_window && !architecture.has_windows()) {
    missed.push_back(
        fmt::format("GGUF's {} knows no window: programs that run the file see all positions "
                    "instead of the last {}",
                    architecture.name, *spec.sliding_window));
  }
  if (family == "minicpm3") {
    const double base = static_cast<double>(spec.hidden_size) / spec.hidden_divisor;
    unless(spec.embedding_multiplier == 12.0 && close(base, 256.0),
           "llama.cpp takes MiniCPM3's scale_emb for 12 and its dim_model_base for 256, whatever "
           "the file says");
  }
  if ((family == "gemma2" || family == "gemma3_text") && spec.query_pre_attn_scalar) {
    unless(close(*spec.query_pre_attn_scalar, gemma_scalar(spec)),
           fmt::format("llama.cpp takes {}'s query_pre_attn_scalar for {}, whatever the file says",
                       family, gemma_scalar(spec)));
  }
  if (family == "baichuan") {
    const bool alibi = spec.position == model::PositionKind::kAlibi;
    unless(spec.num_layers == (alibi ? 40 : 32),
           "llama.cpp knows Baichuan with rotary positions by its 32 layers and with ALiBi by 40; "
           "another number gives other results");
  }
  if (family == "cohere" && spec.qk_norm != model::QkNorm::kNone) {
    unless(spec.num_layers >= 64,
           "llama.cpp has norms of queries and keys in Command R from 64 layers on, and does not "
           "open the file");
  }
  const auto& latent = spec.latent_attention;
  if (architecture.name == "deepseek2" && latent && !latent->q_lora_rank) {
    unless(spec.num_layers == 26 || spec.num_layers == 27,
           "llama.cpp knows DeepSeek-V2 without q_lora_rank by its 26 or 27 layers, and does not "
           "open others");
  }
  if (spec.moe && spec.moe->num_groups > 1) {
    unless(spec.moe->group_score == model::GroupScore::kTopTwoSum,
           "llama.cpp chooses groups of experts by the sum of their two best, this model by the "
           "best alone");
  }
  if (family == "phimoe") {
    missed.emplace_back(
        "llama.cpp's PhiMoE has norms without means, and a softmax instead of SparseMixer: its "
        "results are not those of the model's authors");
  }
  if (spec.gated_delta_net) {
    unless(spec.gated_delta_net->key_head_dim == spec.gated_delta_net->value_head_dim,
           "llama.cpp opens gated delta nets only with value heads as wide as key heads");
  }
  if (spec.indexer) {
    unless(spec.indexer->head_dim % 64 == 0,
           "llama.cpp computes indexers only with heads of a multiple of 64");
  }
  return missed;
}

}  // namespace qianli::convert
