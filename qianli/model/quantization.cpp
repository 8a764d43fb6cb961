#include "qianli/model/quantization.h"

#include <fmt/core.h>

#include "qianli/model/config_reader.h"
#include "qianli/model/hugging_face.h"

namespace qianli::model {
namespace {

constexpr const char* kHint =
    "weights in float8 blocks (quant_method fp8 with weight_block_size) and in mxfp4 are read; "
    "dequantise others with the program that made them";
constexpr int64_t kMaxBlock = int64_t{1} << 20;

Quantization read_fp8(const ConfigReader& config) {
  const auto block = config.integers("weight_block_size");
  const auto is_size = [](int64_t size) { return size >= 1 && size <= kMaxBlock; };
  if (block.size() != 2 || !is_size(block[0]) || !is_size(block[1])) {
    config.fail("weight_block_size", "two block sizes, as [128, 128]", kHint);
  }
  if (config.text("fmt", "e4m3") != "e4m3" && config.text("fmt", "") != "e5m2") {
    config.fail("fmt", "e4m3 or e5m2", kHint);
  }
  if (config.text("activation_scheme", "dynamic") != "dynamic") {
    config.fail("activation_scheme", "dynamic", kHint);
  }
  return {QuantizationMethod::kFp8Blocks, block[0], block[1]};
}

}  // namespace

Quantization read_quantization(const Json& config, const std::string& source) {
  if (!config.is_object() || !config.contains("quantization_config")) return {};
  const ConfigReader reader(config, source);
  if (!reader.has("quantization_config")) return {};
  const ConfigReader own = reader.child("quantization_config");
  const std::string method = own.text("quant_method", "");
  if (method == "fp8") return read_fp8(own);
  if (method == "mxfp4") return {.method = QuantizationMethod::kMxfp4};
  own.fail("quant_method", "fp8 or mxfp4", kHint);
}

Quantization load_quantization(const std::filesystem::path& folder) {
  return read_quantization(read_config(folder), (folder / "config.json").string());
}

}  // namespace qianli::model
