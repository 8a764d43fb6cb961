// quantization_config of a config.json: in how few bits a folder stores its weights. It changes
// nothing of the model; readers turn the weights back into numbers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "qianli/base/json.h"

namespace qianli::model {

enum class QuantizationMethod {
  kNone,
  kFp8Blocks,  // "fp8" with weight_block_size: DeepSeek-V3, Qwen3-FP8
  kMxfp4,      // "mxfp4": the experts of gpt-oss
};

struct Quantization {
  QuantizationMethod method = QuantizationMethod::kNone;
  int64_t block_rows = 128;  // weight_block_size
  int64_t block_columns = 128;
};

// Throws ConfigError for any other method, naming it. `source` names the file.
Quantization read_quantization(const Json& config, const std::string& source);
// That of FOLDER/config.json.
Quantization load_quantization(const std::filesystem::path& folder);

}  // namespace qianli::model
