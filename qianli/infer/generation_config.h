// generation_config.json of Hugging Face folders: where a text ends and how its makers sample.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "qianli/infer/sampler.h"

namespace qianli::infer {

struct GenerationConfig {
  std::vector<int64_t> eos_token_ids;  // empty: the file does not say
  // Greedy unless the file says do_sample; settings that the file leaves out stay neutral.
  SamplingOptions sampling;
};

// FOLDER/generation_config.json; defaults where there is no such file. Throws ConfigError naming
// the key whose value is not of its type or range.
GenerationConfig load_generation_config(const std::filesystem::path& folder);

}  // namespace qianli::infer
