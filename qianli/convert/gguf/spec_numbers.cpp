#include "qianli/convert/gguf/spec_numbers.h"

#include <algorithm>
#include <cmath>

namespace qianli::convert {
namespace {

using model::ModelSpec;

// MiniCPM's is scale_depth / sqrt(layers); scale_depth is a short number.
void take_depth(std::optional<double> scale, ModelSpec& spec) {
  if (!scale || *scale == 0) return;
  const double root = std::sqrt(static_cast<double>(spec.num_layers));
  const double rounded = std::round(*scale * root * 1e4) / 1e4;
  const bool close = std::abs(rounded - *scale * root) <= 2e-7 * std::abs(rounded);
  spec.residual_multiplier = close ? rounded / root : *scale;
}

}  // namespace

void read_multipliers(const GgufKeys& keys, const std::string& prefix, ModelSpec& spec) {
  const auto real = [&](const char* key) { return keys.number(prefix + key); };
  const std::string& family = spec.family;
  const auto hidden = static_cast<double>(spec.hidden_size);
  if (family.starts_with("gemma")) {
    spec.embedding_multiplier = std::sqrt(std::max(hidden, 0.0));
  }
  if (family == "minicpm3") {  // as llama.cpp has it without being told
    spec.embedding_multiplier = 12.0;
    spec.residual_multiplier = 1.4 / std::sqrt(static_cast<double>(spec.num_layers));
    spec.hidden_divisor = hidden / 256.0;
  }
  const auto take = [&](const char* key, double& number) {
    if (const auto value = real(key); value && *value != 0) number = *value;
  };
  const bool minicpm = family.starts_with("minicpm");
  if (minicpm || family == "grok-1") take("embedding_scale", spec.embedding_multiplier);
  if (minicpm) take_depth(real("residual_scale"), spec);
  if (minicpm) take("logit_scale", spec.hidden_divisor);
  if (family == "grok-1" || family.starts_with("cohere")) {
    take("logit_scale", spec.logits_multiplier);
  }
  if (const auto cap = real("final_logit_softcapping"); cap && *cap > 0) {
    spec.final_logit_softcap = cap;
  }
}

void read_token_ids(const GgufKeys& keys, ModelSpec& spec) {
  const auto token = [&](const char* name) {
    const auto id = keys.integer(std::string("tokenizer.ggml.") + name + "_token_id");
    return id && *id >= 0 ? id : std::nullopt;
  };
  spec.bos_token_id = token("bos");
  spec.pad_token_id = token("padding");
  for (const char* name : {"eos", "eot", "eom"}) {
    const auto id = token(name);
    if (id && std::ranges::find(spec.eos_token_ids, *id) == spec.eos_token_ids.end()) {
      spec.eos_token_ids.push_back(*id);
    }
  }
}

}  // namespace qianli::convert
