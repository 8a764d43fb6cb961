// Between bytes of safetensors files and tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "qianli/formats/dtype.h"

namespace qianli::checkpoint {

std::optional<at::ScalarType> scalar_type(formats::Dtype dtype);  // F64, F32, F16, BF16
formats::Dtype stored_dtype(at::ScalarType type);                 // of these four
// "[2, 3]"
std::string shape_text(at::IntArrayRef shape);

}  // namespace qianli::checkpoint
