// A model as the keys of a GGUF file, and back. Keys are those of gguf-py's constants.py; what they
// do not say llama.cpp takes from the architecture and from which tensors are there, and so does
// this.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "qianli/convert/gguf/architecture.h"
#include "qianli/convert/gguf/keys.h"
#include "qianli/model/spec.h"

namespace qianli::convert {

// A tensor that is no parameter: factors of rotary frequencies, one for each rotated pair.
struct RotaryFactors {
  std::string name;  // rope_freqs.weight (llama3), rope_factors_{long,short}.weight (longrope)
  std::vector<float> values;
};
std::vector<RotaryFactors> rotary_factors(const model::ModelSpec& spec);

// What a reader sees of a file.
struct GgufSight {
  const GgufKeys& keys;
  std::function<bool(const std::string& tensor)> has;
  std::function<std::vector<float>(const std::string& tensor)> floats;  // of a small vector
  std::function<int64_t(const std::string& tensor)> rows;               // 0: no such tensor
};

// The keys of a model as as_gguf_tells() has it.
GgufKeys keys_of_spec(const model::ModelSpec& told, const GgufArchitecture& architecture);

// The validated spec that a file speaks of. A file of this program carries its config.json under
// kConfigKey; that counts where it says the same as the other keys. Throws CheckpointError or
// ConfigError.
model::ModelSpec read_gguf_spec(const GgufSight& sight);
// From GGUF's own keys alone.
model::ModelSpec spec_from_keys(const GgufSight& sight);
inline constexpr const char* kConfigKey = "qianli.config";

// Throws ConfigError naming the switches of `told` that a reader of its keys would not learn.
void check_tellable(const model::ModelSpec& told, const GgufArchitecture& architecture,
                    const GgufSight& sight);

}  // namespace qianli::convert
