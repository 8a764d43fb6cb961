// Tensors of safetensors files.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "qianli/formats/safetensors.h"

namespace qianli::testing {

// A copy; F64, F32, I64 or I32. Throws where there is no such tensor.
at::Tensor stored_tensor(const formats::SafetensorsFile& file, const std::string& name);

}  // namespace qianli::testing
