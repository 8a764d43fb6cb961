// The golden tiny models (tools/reference/golden_models.py) and safetensors files as tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "qianli/infer/model.h"
#include "qianli/infer/score.h"

namespace qianli::testing {

std::filesystem::path golden_model_folder(const std::string& name);
// All of them, one of each family and each variant of rotary scaling and attention.
std::vector<std::string> golden_model_names();
std::unique_ptr<infer::Model> open_golden(const std::string& name, const std::string& precision);

// A tensor of a file, copied.
at::Tensor read_tensor(const std::filesystem::path& file, const std::string& name);
at::Tensor golden_tensor(const std::string& model, const std::string& name);
// Rows of an int64 matrix.
std::vector<infer::TokenIds> rows_of(const at::Tensor& tokens);

// A copy of a golden model's folder that a test may spoil.
void copy_golden(const std::string& name, const std::filesystem::path& folder);

}  // namespace qianli::testing
