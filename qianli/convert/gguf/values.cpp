#include "qianli/convert/gguf/values.h"

#include <algorithm>
#include <cmath>

namespace qianli::convert {

GgufValues gguf_values(const GgufArchitecture& architecture, std::string_view tensor) {
  if (tensor.ends_with(".ssm_a")) return GgufValues::kNegativeExp;
  const bool norm = tensor.ends_with("_norm.weight") && !tensor.ends_with("ssm_norm.weight");
  return norm && architecture.norms_plus_one ? GgufValues::kPlusOne : GgufValues::kSame;
}

void to_stored(GgufValues values, std::span<float> numbers) {
  if (values == GgufValues::kPlusOne) {
    for (float& number : numbers) number += 1.0f;
  } else if (values == GgufValues::kNegativeExp) {
    for (float& number : numbers) number = static_cast<float>(-std::exp(double{number}));
  }
}
void from_stored(GgufValues values, std::span<float> numbers) {
  if (values == GgufValues::kPlusOne) {
    for (float& number : numbers) number -= 1.0f;
  } else if (values == GgufValues::kNegativeExp) {
    for (float& number : numbers) number = static_cast<float>(std::log(-double{number}));
  }
}

bool stays_float32(std::string_view tensor, const std::vector<int64_t>& shape) {
  static constexpr std::string_view kNames[] = {"ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight",
                                                "position_embd.weight", "ssm_conv1d.weight"};
  const auto named = [&](std::string_view name) { return tensor.ends_with(name); };
  return shape.size() < 2 || tensor.ends_with("_norm.weight") || !tensor.ends_with(".weight") ||
         std::ranges::any_of(kNames, named);
}

}  // namespace qianli::convert
