#include "tests/infer/golden.h"

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include "qianli/formats/safetensors.h"
#include "tests/support/stored_tensors.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {

std::filesystem::path golden_model_folder(const std::string& name) {
  return source_path("tests/golden/models") / name;
}

std::vector<std::string> golden_model_names() {
  return {"gpt2",    "llama1",         "llama2", "llama3.1",   "llama_dynamic", "llama_linear",
          "mistral", "mistral_window", "qwen2",  "qwen2_yarn", "qwen3"};
}

std::unique_ptr<infer::Model> open_golden(const std::string& name, const std::string& precision) {
  return infer::Model::open(golden_model_folder(name), {.precision = precision, .device = "cpu"});
}

at::Tensor read_tensor(const std::filesystem::path& file, const std::string& name) {
  return stored_tensor(formats::SafetensorsFile::open(file), name);
}

at::Tensor golden_tensor(const std::string& model, const std::string& name) {
  return read_tensor(golden_model_folder(model) / "golden.safetensors", name);
}

std::vector<infer::TokenIds> rows_of(const at::Tensor& tokens) {
  std::vector<infer::TokenIds> rows;
  const at::Tensor flat = tokens.contiguous();
  const auto* ids = flat.data_ptr<int64_t>();
  for (int64_t row = 0; row < flat.size(0); ++row, ids += flat.size(1)) {
    rows.emplace_back(ids, ids + flat.size(1));
  }
  return rows;
}

void copy_golden(const std::string& name, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  for (const char* file : {"config.json", "model.safetensors"}) {
    std::filesystem::copy_file(golden_model_folder(name) / file, folder / file);
  }
}

}  // namespace qianli::testing
