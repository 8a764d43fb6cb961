#include "qianli/formats/ggml_blocks.h"

#include <iterator>

namespace qianli::formats {
namespace {

constexpr GgmlTraits kTraits[] = {
    {"F32", 1, 4},
    {"F16", 1, 2},
    {"Q4_0", 32, 18},
    {"Q4_1", 32, 20},
    {},
    {},
    {"Q5_0", 32, 22},
    {"Q5_1", 32, 24},
    {"Q8_0", 32, 34},
    {"Q8_1", 32, 40},
    {"Q2_K", 256, 84},
    {"Q3_K", 256, 110},
    {"Q4_K", 256, 144},
    {"Q5_K", 256, 176},
    {"Q6_K", 256, 210},
    {"Q8_K", 256, 292},
    {"IQ2_XXS", 256, 66},
    {"IQ2_XS", 256, 74},
    {"IQ3_XXS", 256, 98},
    {"IQ1_S", 256, 50},
    {"IQ4_NL", 32, 18},
    {"IQ3_S", 256, 110},
    {"IQ2_S", 256, 82},
    {"IQ4_XS", 256, 136},
    {"I8", 1, 1},
    {"I16", 1, 2},
    {"I32", 1, 4},
    {"I64", 1, 8},
    {"F64", 1, 8},
    {"IQ1_M", 256, 56},
    {"BF16", 1, 2},
    {},
    {},
    {},
    {"TQ1_0", 256, 54},
    {"TQ2_0", 256, 66},
    {},
    {},
    {},
    {"MXFP4", 32, 17},
    {"NVFP4", 64, 36},
    {"Q1_0", 128, 18},
};

}  // namespace

std::optional<GgmlTraits> ggml_traits(uint32_t type) {
  if (type >= std::size(kTraits) || kTraits[type].block_size == 0) return std::nullopt;
  return kTraits[type];
}

std::optional<Dtype> plain_dtype(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return Dtype::kF32;
    case GgmlType::kF16:
      return Dtype::kF16;
    case GgmlType::kBF16:
      return Dtype::kBF16;
    case GgmlType::kF64:
      return Dtype::kF64;
    case GgmlType::kI8:
      return Dtype::kI8;
    case GgmlType::kI16:
      return Dtype::kI16;
    case GgmlType::kI32:
      return Dtype::kI32;
    case GgmlType::kI64:
      return Dtype::kI64;
    default:
      return std::nullopt;
  }
}

}  // namespace qianli::formats
