#include "tests/support/stored_tensors.h"

#include <ATen/ops/from_blob.h>

#include <stdexcept>

namespace qianli::testing {
namespace {

at::ScalarType scalar_type(formats::Dtype dtype) {
  switch (dtype) {
    case formats::Dtype::kF64:
      return at::kDouble;
    case formats::Dtype::kF32:
      return at::kFloat;
    case formats::Dtype::kI64:
      return at::kLong;
    case formats::Dtype::kI32:
      return at::kInt;
    default:
      throw std::invalid_argument("stored_tensor: F64, F32, I64 or I32");
  }
}

}  // namespace

at::Tensor stored_tensor(const formats::SafetensorsFile& file, const std::string& name) {
  const formats::TensorEntry& entry = file.at(name);
  auto* bytes = const_cast<std::byte*>(entry.bytes.data());
  return at::from_blob(bytes, entry.shape, scalar_type(entry.dtype)).clone();
}

}  // namespace qianli::testing
