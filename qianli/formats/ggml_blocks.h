// The element types of GGML, the library behind GGUF: numbers in blocks of 32 or 256 that share
// scales. Layouts and results are those of gguf-py (github.com/ggml-org/llama.cpp, gguf-py/gguf/
// quants.py), bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "qianli/formats/dtype.h"

namespace qianli::formats {

enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ8_1 = 9,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kQ8_K = 15,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ1_S = 19,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIQ1_M = 29,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
  kNVFP4 = 40,
  kQ1_0 = 41,
};

struct GgmlTraits {
  std::string_view name;    // "Q4_K"
  uint32_t block_size = 0;  // elements
  uint32_t block_bytes = 0;
};
// Nothing for numbers that are no type, or one that was given up (Q4_2, Q4_0_4_4, ...).
std::optional<GgmlTraits> ggml_traits(uint32_t type);

// The plain type of the same layout: F32, F16, BF16, F64, I8 to I64; nothing for blocks.
std::optional<Dtype> plain_dtype(GgmlType type);

// True for the blocks that dequantize() knows: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, Q8_K and
// MXFP4. The IQ, TQ, NVFP4 and Q1 types and Q8_1 are not among them.
bool can_dequantize(GgmlType type);
// Whole blocks to float32; `out` has block_size elements for each.
void dequantize(GgmlType type, std::span<const std::byte> blocks, std::span<float> out);

// Blocks of 32 to Q8_0: a half scale, largest magnitude / 127, and 32 signed bytes, rounded to
// nearest, ties away from zero. Values that are not finite give blocks without meaning.
void quantize_q8_0(std::span<const float> values, std::span<std::byte> blocks);
// To Q4_0: a half scale, the value of largest magnitude / -8, and 32 whole numbers from -8 to 7.
// What a block of either type stands for gives the same block again, if a number of it is at the
// end of the range, as here one always is.
void quantize_q4_0(std::span<const float> values, std::span<std::byte> blocks);

}  // namespace qianli::formats
