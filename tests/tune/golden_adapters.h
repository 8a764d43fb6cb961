// Adapters that PEFT made (tools/reference/golden_lora.py), and the models that they are of.
#pragma once

#include <filesystem>
#include <string>

#include "qianli/convert/adapter/config.h"
#include "tests/infer/golden.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {

inline std::filesystem::path adapter_folder(const std::string& name) {
  return source_path("tests/golden/lora") / name;
}

// A model of tests/golden/models, or of tests/golden/sft.
inline std::filesystem::path base_of(const std::string& name) {
  const std::string base =
      convert::read_adapter_json(adapter_folder(name)).at("base_model_name_or_path");
  const std::filesystem::path folder = golden_model_folder(base);
  return std::filesystem::exists(folder) ? folder : source_path("tests/golden/sft") / base;
}

}  // namespace qianli::testing
