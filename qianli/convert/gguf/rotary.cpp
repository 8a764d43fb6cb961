#include "qianli/convert/gguf/rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace qianli::convert {
namespace {

using model::ModelSpec;
using model::Rope;
using model::RopeScaling;
using model::RopeScalingKind;

constexpr const char* kFrequencies = "rope_freqs.weight";
constexpr const char* kLong = "rope_factors_long.weight";
constexpr const char* kShort = "rope_factors_short.weight";
constexpr double kLowFrequency = 1.0, kHighFrequency = 4.0;  // of every published Llama 3
constexpr double kStepHighFrequency = 32.0;                  // of Step-3.5-Flash
constexpr int64_t kLlama3Positions = 8192;

// What each pair's frequency is divided by (transformers, _compute_llama3_parameters).
std::vector<float> llama3_factors(const ModelSpec& spec, const RopeScaling& scaling) {
  const int64_t size = spec.rotary_size(spec.rope);
  const auto original = static_cast<double>(scaling.original_max_positions);
  std::vector<float> factors;
  for (int64_t i = 0; i < size / 2; ++i) {
    const double exponent = static_cast<double>(2 * i) / static_cast<double>(size);
    const double wavelength = 2 * std::numbers::pi * std::pow(spec.rope.base, exponent);
    double factor = 1.0;
    if (wavelength > original / scaling.low_freq_factor) {
      factor = scaling.factor;
    } else if (wavelength >= original / scaling.high_freq_factor) {
      const double smooth = (original / wavelength - scaling.low_freq_factor) /
                            (scaling.high_freq_factor - scaling.low_freq_factor);
      factor = 1.0 / ((1.0 - smooth) / scaling.factor + smooth);
    }
    factors.push_back(static_cast<float>(factor));
  }
  return factors;
}

// Pairs of all layers stand in one tensor, those of Step-3.5's layers with a window behind.
int64_t widest_rotary(const ModelSpec& spec) {
  const int64_t size = spec.rotary_size(spec.rope);
  return spec.sliding_rope ? std::max(size, spec.rotary_size(*spec.sliding_rope)) : size;
}

std::vector<float> narrow(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}
std::vector<double> wide(const std::vector<float>& values) {
  std::vector<double> numbers;
  for (const float value : values) numbers.push_back(shortest_double(value));
  return numbers;
}

// The amplitude of longrope where the file gives none (transformers, _compute_longrope_parameters).
double implied_amplitude(const ModelSpec& spec, int64_t original_positions) {
  const auto original = static_cast<double>(original_positions);
  const double factor = static_cast<double>(spec.max_position_embeddings) / original;
  return factor <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(factor) / std::log(original));
}

double amplitude_of(const ModelSpec& spec, const RopeScaling& scaling) {
  // Of the two of Phi-3.5-MoE the long one; where they differ, reading back tells.
  if (scaling.long_mscale) return *scaling.long_mscale;
  return scaling.attention_factor.value_or(implied_amplitude(spec, scaling.original_max_positions));
}

void write_yarn(const RopeScaling& scaling, const std::string& prefix, GgufKeys& keys) {
  keys.set(prefix + "factor", scaling.factor);
  if (scaling.beta_fast != 32.0) keys.set(prefix + "yarn_beta_fast", scaling.beta_fast);
  if (scaling.beta_slow != 1.0) keys.set(prefix + "yarn_beta_slow", scaling.beta_slow);
  if (scaling.attention_factor) {
    keys.set(prefix + "yarn_attn_factor", *scaling.attention_factor);
  }
  if (scaling.mscale_all_dim) {
    keys.set(prefix + "yarn_log_multiplier", 0.1 * *scaling.mscale_all_dim);
  }
}

void read_yarn(const GgufKeys& keys, const std::string& prefix, RopeScaling& scaling) {
  scaling.factor = keys.number(prefix + "factor").value_or(1.0);
  scaling.beta_fast = keys.number(prefix + "yarn_beta_fast").value_or(32.0);
  scaling.beta_slow = keys.number(prefix + "yarn_beta_slow").value_or(1.0);
  scaling.attention_factor = keys.number(prefix + "yarn_attn_factor");
  if (const auto logarithm = keys.number(prefix + "yarn_log_multiplier")) {
    // A tenth of a short decimal: take the nearest that has four digits.
    const double mscale = std::round(*logarithm * 1e5) / 1e4;
    if (mscale != 0) scaling.mscale = scaling.mscale_all_dim = mscale;
  }
}

void read_longrope(const GgufSight& sight, const std::string& prefix, ModelSpec& spec) {
  RopeScaling& scaling = spec.rope.scaling;
  scaling.kind = RopeScalingKind::kLongrope;
  scaling.short_factor = wide(sight.floats(kShort));
  scaling.long_factor = wide(sight.floats(kLong));
  const auto amplitude = sight.keys.number(prefix + "attn_factor");
  if (!amplitude || scaling.original_max_positions < 1) return;
  const double implied = implied_amplitude(spec, scaling.original_max_positions);
  if (static_cast<float>(implied) == static_cast<float>(*amplitude)) return;
  if (spec.family == "phimoe") {
    scaling.short_mscale = scaling.long_mscale = *amplitude;
  } else {
    scaling.attention_factor = *amplitude;
  }
}

// The factors of Llama 3 stand in a tensor; the numbers they are made of follow from it, those that
// all published models of the family share and the original positions taken for granted.
void read_llama3(const GgufSight& sight, ModelSpec& spec) {
  std::vector<float> factors = sight.floats(kFrequencies);
  const auto own = static_cast<size_t>(spec.rotary_size(spec.rope) / 2);
  if (spec.sliding_rope && factors.size() > own) factors.resize(own);
  RopeScaling scaling = spec.rope.scaling;
  scaling.kind = RopeScalingKind::kLlama3;
  scaling.low_freq_factor = kLowFrequency;
  scaling.high_freq_factor = spec.family == "step3p5" ? kStepHighFrequency : kHighFrequency;
  if (scaling.original_max_positions == 0) scaling.original_max_positions = kLlama3Positions;
  scaling.factor = factors.empty() ? 1.0 : shortest_double(std::ranges::max(factors));
  const auto expected = llama3_factors(spec, scaling);
  const bool same = std::ranges::equal(
      factors, expected, [](float a, float b) { return std::abs(a - b) <= 1e-4f * std::abs(b); });
  if (!same) sight.keys.refuse(kFrequencies, "the factors of llama3's rotary positions");
  spec.rope.scaling = scaling;
}

}  // namespace

std::vector<RotaryFactors> rotary_factors(const ModelSpec& spec) {
  const RopeScaling& scaling = spec.rope.scaling;
  if (spec.position != model::PositionKind::kRotary) return {};
  if (scaling.kind == RopeScalingKind::kLlama3) {
    auto factors = llama3_factors(spec, scaling);
    factors.resize(static_cast<size_t>(widest_rotary(spec) / 2), 1.0F);
    return {{kFrequencies, std::move(factors)}};
  }
  if (scaling.kind == RopeScalingKind::kLongrope) {
    return {{kLong, narrow(scaling.long_factor)}, {kShort, narrow(scaling.short_factor)}};
  }
  return {};
}

void write_rotary_keys(const ModelSpec& spec, const std::string& prefix, GgufKeys& keys) {
  const Rope& rope = spec.rope;
  const RopeScaling& scaling = rope.scaling;
  const std::string at = prefix + "rope.scaling.";
  keys.set(prefix + "rope.freq_base", rope.base);
  keys.set(prefix + "rope.dimension_count", widest_rotary(spec));
  if (spec.sliding_rope) keys.set(prefix + "rope.freq_base_swa", spec.sliding_rope->base);
  if (scaling.original_max_positions > 0) {
    keys.set(at + "original_context_length", scaling.original_max_positions);
  }
  if (scaling.kind == RopeScalingKind::kLinear) {
    keys.set(at + "type", "linear");
    keys.set(at + "factor", scaling.factor);
  } else if (scaling.kind == RopeScalingKind::kYarn) {
    keys.set(at + "type", "yarn");
    write_yarn(scaling, at, keys);
  } else if (scaling.kind == RopeScalingKind::kLongrope) {
    keys.set(at + "type", "longrope");
    keys.set(at + "attn_factor", amplitude_of(spec, scaling));
  }
}

void read_rotary_keys(const GgufSight& sight, const std::string& prefix, ModelSpec& spec) {
  const GgufKeys& keys = sight.keys;
  const std::string at = prefix + "rope.scaling.";
  Rope& rope = spec.rope;
  rope.base = keys.number(prefix + "rope.freq_base").value_or(10000.0);
  const auto rotated = keys.integer(prefix + "rope.dimension_count");
  if (rotated && !spec.latent_attention && *rotated != spec.rotary_size(rope)) {
    if (*rotated < 0 || *rotated > spec.head_dim) {
      keys.refuse(prefix + "rope.dimension_count", "a part of a head");
    }
    rope.fraction = static_cast<double>(*rotated) / static_cast<double>(spec.head_dim);
  }
  if (spec.family == "step3p5") {  // whose layers without a window rotate half as much
    spec.sliding_rope = Rope{.fraction = rope.fraction};
    rope.fraction /= 2;
  }
  if (spec.sliding_rope) {
    spec.sliding_rope->base = keys.number(prefix + "rope.freq_base_swa").value_or(10000.0);
  }
  rope.scaling.original_max_positions = keys.integer(at + "original_context_length").value_or(0);
  const std::string type = keys.text(at + "type").value_or("none");
  if (sight.has(kLong) && sight.has(kShort)) return read_longrope(sight, at, spec);
  if (sight.has(kFrequencies)) return read_llama3(sight, spec);
  if (type == "linear") {
    rope.scaling = {.kind = RopeScalingKind::kLinear,
                    .factor = keys.number(at + "factor").value_or(1.0)};
  } else if (type == "yarn") {
    rope.scaling.kind = RopeScalingKind::kYarn;
    // The one published family that does not round its correction range.
    rope.scaling.truncate = spec.family != "gpt_oss";
    read_yarn(keys, at, rope.scaling);
  } else if (type == "none" || type == "longrope") {
    rope.scaling = {};
  } else {
    keys.refuse(at + "type", "none, linear, yarn or longrope");
  }
}

}  // namespace qianli::convert
