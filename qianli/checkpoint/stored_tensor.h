// Between bytes of safetensors files and tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "qianli/formats/safetensors.h"

namespace qianli::checkpoint {

std::optional<at::ScalarType> scalar_type(formats::Dtype dtype);  // F64, F32, F16, BF16
formats::Dtype stored_dtype(at::ScalarType type);                 // of these four
// A view of the mapped bytes, valid while the file is open; a copy where they lie at an address
// that is no multiple of their size. Nothing for dtypes that are no weights.
std::optional<at::Tensor> view_of(const formats::TensorEntry& entry);
// "[2, 3]"
std::string shape_text(at::IntArrayRef shape);

}  // namespace qianli::checkpoint
