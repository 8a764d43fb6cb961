// Element types of tensors in files. Names and order are those of safetensors.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace qianli::formats {

// In ascending order of the safetensors reference; its writer lays tensors down from the last to
// the first, so that wide elements come first and every tensor of whole-byte elements is aligned.
enum class Dtype : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};
inline constexpr int kNumDtypes = 22;

// Bits of one element: 1 byte for kBool, 4 for kF4, 6 for the kF6 types.
int bit_size(Dtype dtype);
// "BF16", "F8_E4M3".
std::string_view dtype_name(Dtype dtype);
std::optional<Dtype> dtype_from_name(std::string_view name);

// Bytes of a tensor of this shape (empty shape: one element), or nothing where a dimension is
// negative, the product of the dimensions other than zero leaves int64, or sub-byte elements do not
// fill whole bytes.
std::optional<uint64_t> byte_size(Dtype dtype, std::span<const int64_t> shape);

}  // namespace qianli::formats
