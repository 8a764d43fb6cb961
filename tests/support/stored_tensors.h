// Tensors of safetensors files.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "qianli/formats/safetensors.h"
#include "qianli/model/parameter_table.h"

namespace qianli::testing {

// A copy; F64, F32, I64 or I32. Throws where there is no such tensor.
at::Tensor stored_tensor(const formats::SafetensorsFile& file, const std::string& name);

// The rows of a part [rows, columns], or for woven ones [rows / block, block, columns]: views of
// the tensor as a Hugging Face folder has it and of the parameter, alike in shape.
at::Tensor foreign_rows(const model::ForeignPiece& piece, const at::Tensor& stored);
at::Tensor own_rows(const model::ForeignPiece& piece, const at::Tensor& parameter);

}  // namespace qianli::testing
