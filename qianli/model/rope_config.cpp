#include "qianli/model/rope_config.h"

#include <fmt/core.h>

#include <array>
#include <cmath>

namespace qianli::model {
namespace {

constexpr std::array kKinds{RopeScalingKind::kNone, RopeScalingKind::kLinear,
                            RopeScalingKind::kDynamic, RopeScalingKind::kLlama3,
                            RopeScalingKind::kYarn};

RopeScalingKind read_kind(const ConfigReader& rope) {
  const std::string old_name = rope.text("type", "default");
  const std::string name = rope.text("rope_type", old_name);
  for (const RopeScalingKind kind : kKinds) {
    if (to_string(kind) == name) return kind;
  }
  rope.fail(rope.has("rope_type") ? "rope_type" : "type",
            "one of default, linear, dynamic, llama3, yarn");
}

// The amplitude of cos and sin under yarn: given as such, or as two multipliers of the logarithm.
std::optional<double> read_attention_factor(const ConfigReader& rope, double factor) {
  const double mscale = rope.number("mscale", 0);
  const double mscale_all_dim = rope.number("mscale_all_dim", 0);
  if (rope.has("attention_factor")) return rope.number("attention_factor");
  if (mscale == 0 || mscale_all_dim == 0 || factor <= 1) return std::nullopt;
  return (0.1 * mscale * std::log(factor) + 1) / (0.1 * mscale_all_dim * std::log(factor) + 1);
}

// 0 and null stand for the default, as in transformers.
double number_or(const ConfigReader& rope, const char* key, double fallback) {
  const double value = rope.number(key, 0);
  return value == 0 ? fallback : value;
}

void read_yarn(const ConfigReader& rope, const ModelSpec& spec, RopeScaling& scaling) {
  const double implied = static_cast<double>(spec.max_position_embeddings) /
                         static_cast<double>(scaling.original_max_positions);
  scaling.factor = rope.number("factor", implied);
  scaling.beta_fast = number_or(rope, "beta_fast", 32);
  scaling.beta_slow = number_or(rope, "beta_slow", 1);
  scaling.truncate = rope.flag("truncate", true);
  scaling.attention_factor = read_attention_factor(rope, scaling.factor);
}

// Original positions: the key of the object; a key beside it has the last word, as in transformers.
int64_t read_original(const ConfigReader& config, const ConfigReader& rope, int64_t maximum) {
  const char* key = "original_max_position_embeddings";
  const int64_t inside = rope.integer(key, maximum);
  const int64_t original = config.integer(key, inside);
  if (original < 1) (config.has(key) ? config : rope).fail(key, "a positive integer");
  return original;
}

void refuse_unread(const ConfigReader& rope, RopeScalingKind kind) {
  for (const std::string& key : rope.unread()) {
    // Written by old converters, without effect on these kinds.
    if (key == "finetuned" || key == "original_max_position_embeddings") continue;
    rope.fail(
        key, fmt::format("no such key beside rope_type {}", to_string(kind)),
        "this rotary option is not supported; without it the model would compute something else");
  }
}

void read_scaling(const ConfigReader& config, const ConfigReader& rope, ModelSpec& spec) {
  RopeScaling& scaling = spec.rope_scaling;
  scaling.kind = read_kind(rope);
  if (rope.has("rope_theta")) spec.rope_base = rope.number("rope_theta");
  if (rope.number("partial_rotary_factor", 1) != 1) {
    rope.fail("partial_rotary_factor", "1 (rotation of part of a head is not supported)");
  }
  switch (scaling.kind) {
    case RopeScalingKind::kNone:
      rope.raw("factor");  // a factor of 1 stands in some files, without effect
      break;
    case RopeScalingKind::kLinear:
    case RopeScalingKind::kDynamic:
      scaling.factor = rope.number("factor");
      break;
    case RopeScalingKind::kLlama3:
      scaling.original_max_positions = read_original(config, rope, spec.max_position_embeddings);
      scaling.factor = rope.number("factor");
      scaling.low_freq_factor = rope.number("low_freq_factor");
      scaling.high_freq_factor = rope.number("high_freq_factor");
      break;
    case RopeScalingKind::kYarn:
      scaling.original_max_positions = read_original(config, rope, spec.max_position_embeddings);
      read_yarn(rope, spec, scaling);
      break;
  }
  refuse_unread(rope, scaling.kind);
}

}  // namespace

void read_rope(const ConfigReader& config, ModelSpec& spec) {
  spec.rope_base = config.number("rope_theta", 10000.0);
  config.raw("original_max_position_embeddings");
  const bool scaling = config.has("rope_scaling");
  const bool parameters = config.has("rope_parameters");
  if (scaling && parameters && config.raw("rope_scaling") != config.raw("rope_parameters")) {
    config.fail("rope_scaling", "the same rotary options in rope_scaling and rope_parameters",
                "keep one of the two");
  }
  if (!scaling && !parameters) return;
  const std::string key = scaling ? "rope_scaling" : "rope_parameters";
  for (const Json& value : config.raw(key)) {
    if (config.raw(key).is_object() && value.is_object()) {
      config.fail(key, "one set of rotary options for all layers",
                  "rotary options that differ by layer are not supported");
    }
  }
  read_scaling(config, config.child(key), spec);
}

void write_rope(const ModelSpec& spec, OrderedJson& config) {
  const RopeScaling& scaling = spec.rope_scaling;
  config["rope_theta"] = spec.rope_base;
  config["rope_scaling"] = nullptr;
  if (scaling.kind == RopeScalingKind::kNone) return;
  OrderedJson rope;
  rope["rope_type"] = to_string(scaling.kind);
  rope["factor"] = scaling.factor;
  if (scaling.kind == RopeScalingKind::kLlama3) {
    rope["low_freq_factor"] = scaling.low_freq_factor;
    rope["high_freq_factor"] = scaling.high_freq_factor;
    rope["original_max_position_embeddings"] = scaling.original_max_positions;
  }
  if (scaling.kind == RopeScalingKind::kYarn) {
    rope["original_max_position_embeddings"] = scaling.original_max_positions;
    rope["beta_fast"] = scaling.beta_fast;
    rope["beta_slow"] = scaling.beta_slow;
    if (scaling.attention_factor) rope["attention_factor"] = *scaling.attention_factor;
    if (!scaling.truncate) rope["truncate"] = false;
  }
  config["rope_scaling"] = rope;
}

}  // namespace qianli::model
