#include "qianli/model/presets.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/model/family.h"

namespace qianli::model {
namespace {

constexpr Preset kPresets[] = {
#include "qianli/model/presets_data.inc"
};

ModelSpec spec_of(const Preset& preset) {
  ModelSpec spec = find_family(preset.family).traits;
  spec.num_layers = preset.num_layers;
  spec.hidden_size = preset.hidden_size;
  spec.ffn_hidden_size = preset.ffn_hidden_size;
  spec.num_attention_heads = preset.num_attention_heads;
  spec.num_query_groups = preset.num_query_groups;
  spec.head_dim = preset.head_dim;
  spec.vocab_size = preset.vocab_size;
  spec.max_position_embeddings = preset.max_position_embeddings;
  spec.norm_eps = preset.norm_eps;
  spec.rope.base = preset.rope_base;
  spec.tie_word_embeddings = preset.tie_word_embeddings;
  if (preset.activation) spec.activation = *preset.activation;
  if (preset.llama3_factor > 0) {
    spec.rope.scaling = {.kind = RopeScalingKind::kLlama3,
                         .factor = preset.llama3_factor,
                         .original_max_positions = 8192,
                         .low_freq_factor = 1.0,
                         .high_freq_factor = 4.0};
  }
  return spec;
}

const Preset* find(std::string_view name) {
  const auto found = std::ranges::find(kPresets, name, &Preset::name);
  return found == std::end(kPresets) ? nullptr : found;
}

}  // namespace

std::span<const Preset> presets() { return kPresets; }

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  return names;
}

bool is_preset(std::string_view name) { return find(name) != nullptr; }

ModelSpec preset(std::string_view name) {
  if (const Preset* found = find(name)) return spec_of(*found);
  throw ConfigError("model",
                    fmt::format("expected the name of a preset, got '{}'{}", name.substr(0, 200),
                                suggestion(name, preset_names())),
                    "`qianli presets` lists them");
}

}  // namespace qianli::model
