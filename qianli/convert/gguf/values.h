// What happens to the numbers of a model on the way into a GGUF file.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "qianli/convert/gguf/architecture.h"

namespace qianli::convert {

// What is done to the numbers of a tensor on the way into a file.
enum class GgufValues {
  kSame,
  kPlusOne,      // weights of norms around 0
  kNegativeExp,  // -exp(x): A_log as the decay it stands for
};
GgufValues gguf_values(const GgufArchitecture& architecture, std::string_view tensor);

// In float32, as PyTorch does it where llama.cpp converts, and back.
void to_stored(GgufValues values, std::span<float> numbers);
void from_stored(GgufValues values, std::span<float> numbers);

// Whether llama.cpp's converter keeps the tensor in float32 whatever the model's type is.
bool stays_float32(std::string_view tensor, const std::vector<int64_t>& shape);

}  // namespace qianli::convert
