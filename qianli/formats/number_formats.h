// The numbers that weights are stored as, and their conversion. float32 stands in the middle: every
// value of the narrower types is one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "qianli/formats/dtype.h"

namespace qianli::formats {

// F64, F32, F16, BF16 and the one-byte types F8_*. The conversions below know I32 and I64 too.
bool is_floating_point(Dtype dtype);

// Exact, except that F64 is rounded to nearest, ties to even. `values` may lie at any address and
// holds out.size() elements of a floating-point type, I32 or I64; another one is a
// std::logic_error.
void to_float32(Dtype from, std::span<const std::byte> values, std::span<float> out);
// To F64, F32, F16 or BF16: to nearest, ties to even; too large becomes infinite; a NaN stays one.
// To I32 and I64: the whole part; what they have no number for becomes 0.
void from_float32(std::span<const float> values, Dtype to, std::span<std::byte> out);
// The same number of elements from one type to the other; equal types are copied bit by bit, and
// others pass through float32, as in PyTorch.
void convert_numbers(Dtype from, std::span<const std::byte> values, Dtype to,
                     std::span<std::byte> out);

// One number at a time.
float f16_to_float32(uint16_t bits);
uint16_t float32_to_f16(float value);
uint16_t float32_to_bf16(float value);

// 2^(code - 127), the scale of microscaling blocks; code 255 is NaN. (OCP MX 1.0, E8M0)
float e8m0_to_float32(uint8_t code);

// MXFP4 (OCP Microscaling Formats 1.0) as gpt-oss stores it: rows of 32 elements in 16 bytes, the
// low nibble first, one E8M0 scale per row. out[32 * r + i] = e2m1(nibble i of row r) * scales[r].
void mxfp4_to_float32(std::span<const std::byte> rows, std::span<const std::byte> scales,
                      std::span<float> out);
// The same with the scales as numbers.
void mxfp4_to_float32(std::span<const std::byte> rows, std::span<const float> scales,
                      std::span<float> out);

}  // namespace qianli::formats
