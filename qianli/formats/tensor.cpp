#include "qianli/formats/tensor.h"

#include <fmt/ranges.h>

namespace qianli::formats {

uint64_t TensorSpec::num_bytes() const { return byte_size(dtype, shape).value_or(0); }

int64_t TensorSpec::num_elements() const {
  int64_t product = 1;
  for (const int64_t dimension : shape) product *= dimension;
  return product;
}

std::string shape_text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace qianli::formats
