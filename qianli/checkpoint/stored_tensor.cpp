#include "qianli/checkpoint/stored_tensor.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <cstring>
#include <stdexcept>

namespace qianli::checkpoint {

std::optional<at::ScalarType> scalar_type(formats::Dtype dtype) {
  switch (dtype) {
    case formats::Dtype::kF64:
      return at::kDouble;
    case formats::Dtype::kF32:
      return at::kFloat;
    case formats::Dtype::kF16:
      return at::kHalf;
    case formats::Dtype::kBF16:
      return at::kBFloat16;
    default:
      return std::nullopt;
  }
}

formats::Dtype stored_dtype(at::ScalarType type) {
  for (const auto dtype :
       {formats::Dtype::kF64, formats::Dtype::kF32, formats::Dtype::kF16, formats::Dtype::kBF16}) {
    if (scalar_type(dtype) == type) return dtype;
  }
  throw std::logic_error(fmt::format("no stored weights of type {}", c10::toString(type)));
}

std::optional<at::Tensor> view_of(const formats::TensorEntry& entry) {
  const auto type = scalar_type(entry.dtype);
  if (!type) return std::nullopt;
  const std::byte* bytes = entry.bytes.data();
  const auto size = static_cast<uintptr_t>(formats::bit_size(entry.dtype) / 8);
  if (reinterpret_cast<uintptr_t>(bytes) % size != 0) {
    at::Tensor copy = at::empty(entry.shape, *type);
    std::memcpy(copy.mutable_data_ptr(), bytes, entry.bytes.size());
    return copy;
  }
  // Never written through.
  return at::from_blob(const_cast<std::byte*>(bytes), entry.shape, *type);
}

std::string shape_text(at::IntArrayRef shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace qianli::checkpoint
