// Specs as text: names of the switches, and how two specs differ.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include "qianli/model/spec.h"

namespace qianli::model {
namespace {

std::string text(int64_t value) { return fmt::format("{}", value); }
std::string text(double value) { return fmt::format("{}", value); }
std::string text(bool value) { return value ? "true" : "false"; }
std::string text(const std::string& value) { return value; }
std::string text(NormKind value) { return to_string(value); }
std::string text(PositionKind value) { return to_string(value); }
std::string text(Activation value) { return to_string(value); }
std::string text(RopeScalingKind value) { return to_string(value); }
std::string text(const std::vector<int64_t>& values) { return fmt::format("{}", values); }

template <class T>
std::string text(const std::optional<T>& value) {
  return value ? text(*value) : "none";
}

}  // namespace

std::string to_string(NormKind kind) {
  return kind == NormKind::kRmsNorm ? "RMSNorm" : "LayerNorm";
}

std::string to_string(PositionKind kind) {
  return kind == PositionKind::kRotary ? "rotary" : "learned";
}

std::string to_string(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return "silu";
    case Activation::kGelu:
      return "gelu";
    case Activation::kGeluTanh:
      return "gelu_tanh";
    case Activation::kRelu:
      return "relu";
  }
  return "unknown";
}

std::string to_string(RopeScalingKind kind) {
  switch (kind) {
    case RopeScalingKind::kNone:
      return "default";
    case RopeScalingKind::kLinear:
      return "linear";
    case RopeScalingKind::kDynamic:
      return "dynamic";
    case RopeScalingKind::kLlama3:
      return "llama3";
    case RopeScalingKind::kYarn:
      return "yarn";
  }
  return "unknown";
}

std::vector<std::string> differences(const ModelSpec& a, const ModelSpec& b) {
  std::vector<std::string> lines;
  const auto compare = [&lines](const char* name, const auto& x, const auto& y) {
    if (x != y) lines.push_back(fmt::format("{}: {} and {}", name, text(x), text(y)));
  };
#define QIANLI_COMPARE(field) compare(#field, a.field, b.field)
  QIANLI_COMPARE(family);
  QIANLI_COMPARE(num_layers);
  QIANLI_COMPARE(hidden_size);
  QIANLI_COMPARE(ffn_hidden_size);
  QIANLI_COMPARE(num_attention_heads);
  QIANLI_COMPARE(num_query_groups);
  QIANLI_COMPARE(head_dim);
  QIANLI_COMPARE(vocab_size);
  QIANLI_COMPARE(max_position_embeddings);
  QIANLI_COMPARE(norm);
  QIANLI_COMPARE(norm_eps);
  QIANLI_COMPARE(norm_bias);
  QIANLI_COMPARE(qk_norm);
  QIANLI_COMPARE(position);
  QIANLI_COMPARE(rope_base);
  QIANLI_COMPARE(rope_scaling.kind);
  QIANLI_COMPARE(rope_scaling.factor);
  QIANLI_COMPARE(rope_scaling.original_max_positions);
  QIANLI_COMPARE(rope_scaling.low_freq_factor);
  QIANLI_COMPARE(rope_scaling.high_freq_factor);
  QIANLI_COMPARE(rope_scaling.beta_fast);
  QIANLI_COMPARE(rope_scaling.beta_slow);
  QIANLI_COMPARE(rope_scaling.attention_factor);
  QIANLI_COMPARE(rope_scaling.truncate);
  QIANLI_COMPARE(gated_mlp);
  QIANLI_COMPARE(activation);
  QIANLI_COMPARE(qkv_bias);
  QIANLI_COMPARE(attention_out_bias);
  QIANLI_COMPARE(mlp_bias);
  QIANLI_COMPARE(tie_word_embeddings);
  QIANLI_COMPARE(sliding_window);
  QIANLI_COMPARE(init_std);
  QIANLI_COMPARE(bos_token_id);
  QIANLI_COMPARE(eos_token_ids);
  QIANLI_COMPARE(pad_token_id);
#undef QIANLI_COMPARE
  return lines;
}

}  // namespace qianli::model
