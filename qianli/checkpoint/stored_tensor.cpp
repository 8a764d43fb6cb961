#include "qianli/checkpoint/stored_tensor.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

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

std::string shape_text(at::IntArrayRef shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace qianli::checkpoint
