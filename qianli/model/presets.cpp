#include "qianli/model/presets.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/model/family.h"
#include "qianli/model/spec_fields.h"

namespace qianli::model {
namespace {

constexpr Preset kPresets[] = {
#include "qianli/model/presets_data.inc"
};

constexpr PresetNote kNotes[] = {
    {"deepseek-v4-flash-284b",
     "without the published model's heads for tokens further ahead (6.77 G), which no reference "
     "computes; with the 523 M of compressors, indexers and hyper-connections that the published "
     "283.8 G leave out; its published config.json has yarn on the layers with compressed keys, "
     "and "
     "is read from its folder"},
    {"glm5.2-744b",
     "57 of its 78 layers take the choice of an earlier layer's indexer; published weights have no "
     "indexer there, so that the count is 534 M (57 x 9371904) below that of glm5-744b"},
    {"step3.5-flash-196b",
     "the defaults of its configuration class; the published config.json has windows, 96 heads and "
     "other rotary options in three of four layers, and is read from its folder"},
};

ModelSpec spec_of(const Preset& preset) {
  ModelSpec spec = find_family(preset.family).traits;
  for (const std::string& field : split(preset.fields, ' ')) {
    const size_t equals = field.find('=');
    set_field(spec, std::string_view(field).substr(0, equals),
              std::string_view(field).substr(equals + 1));
  }
  return spec;
}

const Preset* find(std::string_view name) {
  const auto found = std::ranges::find(kPresets, name, &Preset::name);
  return found == std::end(kPresets) ? nullptr : found;
}

}  // namespace

std::span<const Preset> presets() { return kPresets; }

std::string_view preset_note(std::string_view name) {
  const auto found = std::ranges::find(kNotes, name, &PresetNote::name);
  return found == std::end(kNotes) ? std::string_view() : found->text;
}

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
