// Named models: published architectures and small ones for tests and laptops. A preset says nothing
// about weights or tokens (bos, eos): those come with a folder or a tokenizer.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/model/spec.h"

namespace qianli::model {

// An entry of presets_data.inc: a family, and the fields in which its member differs from the
// family's traits ("num_layers=32 rope.scaling.kind=llama3 …", read when the preset is asked for).
struct Preset {
  std::string_view name;
  std::string_view family;
  int64_t parameters;  // parameter_count of the spec
  std::string_view fields;
};

// What is to be said of a preset beside its sizes.
struct PresetNote {
  std::string_view name;
  std::string_view text;
};

std::span<const Preset> presets();
std::string_view preset_note(std::string_view name);  // empty: nothing
std::vector<std::string> preset_names();
bool is_preset(std::string_view name);

// Throws ConfigError with the nearest name.
ModelSpec preset(std::string_view name);

}  // namespace qianli::model
