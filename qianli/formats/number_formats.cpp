// Loops without branches, so that the compiler makes vectors of them.
#include "qianli/formats/number_formats.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "qianli/formats/little_endian.h"

namespace qianli::formats {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr float power_of_two(int exponent) {
  float value = 1;
  for (; exponent > 0; --exponent) value *= 2;
  for (; exponent < 0; ++exponent) value /= 2;
  return value;
}

// Sign, exponent, mantissa in one byte. How the codes at the ends are used differs:
//   kIeee  the largest exponent is infinity and NaN
//   kFn    no infinity; all ones but the sign is NaN
//   kFnuz  no infinity and no negative zero; that code is the one NaN
enum class Ends { kIeee, kFn, kFnuz };

constexpr float decode(unsigned code, int mantissa_bits, int bias, Ends ends) {
  const unsigned magnitude = code & 0x7f;
  const float sign = code & 0x80 ? -1.0f : 1.0f;
  const auto exponent = static_cast<int>(magnitude >> mantissa_bits);
  const unsigned mantissa = magnitude & ((1u << mantissa_bits) - 1);
  const int largest = 0x7f >> mantissa_bits;
  if (ends == Ends::kFnuz && code == 0x80) return kNan;
  if (ends == Ends::kFn && magnitude == 0x7f) return kNan;
  if (ends == Ends::kIeee && exponent == largest) return mantissa ? kNan : sign * kInfinity;
  const float step = power_of_two(std::max(exponent, 1) - bias - mantissa_bits);
  const unsigned implicit = exponent > 0 ? 1u << mantissa_bits : 0u;
  return sign * static_cast<float>(implicit + mantissa) * step;
}

using ByteTable = std::array<float, 256>;

constexpr ByteTable minifloat_table(int mantissa_bits, int bias, Ends ends) {
  ByteTable table{};
  for (unsigned code = 0; code < 256; ++code) table[code] = decode(code, mantissa_bits, bias, ends);
  return table;
}

constexpr ByteTable kE4M3 = minifloat_table(3, 7, Ends::kFn);
constexpr ByteTable kE5M2 = minifloat_table(2, 15, Ends::kIeee);
constexpr ByteTable kE4M3Fnuz = minifloat_table(3, 8, Ends::kFnuz);
constexpr ByteTable kE5M2Fnuz = minifloat_table(2, 16, Ends::kFnuz);
constexpr ByteTable kE8M0 = [] {
  ByteTable table{};
  for (int code = 0; code < 255; ++code)
    table[static_cast<size_t>(code)] = power_of_two(code - 127);
  table[255] = kNan;
  return table;
}();
// Four bits: sign, two of exponent, one of mantissa (E2M1).
constexpr std::array<float, 16> kE2M1{0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                      -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

void look_up(const ByteTable& table, std::span<const std::byte> codes, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) out[i] = table[static_cast<uint8_t>(codes[i])];
}

inline float f16_value(uint32_t bits) {
  const uint32_t magnitude = (bits & 0x7fff) << 13;
  const uint32_t exponent = bits & 0x7c00;
  // A subnormal half has the value of its mantissa in steps of 2^-24; 2^-14 is added and taken
  // away.
  const float subnormal =
      std::bit_cast<float>(magnitude + (113u << 23)) - std::bit_cast<float>(113u << 23);
  const uint32_t normal = magnitude + (112u << 23);
  const uint32_t ends = magnitude | 0x7f800000u;
  const uint32_t value = exponent == 0        ? std::bit_cast<uint32_t>(subnormal)
                         : exponent == 0x7c00 ? ends
                                              : normal;
  return std::bit_cast<float>(value | (bits & 0x8000) << 16);
}

// After Giesen, "float->half variants" (round to nearest even).
inline uint32_t f16_bits(float value) {
  const auto all = std::bit_cast<uint32_t>(value);
  const uint32_t bits = all & 0x7fffffff;
  constexpr uint32_t kMagic = (127 - 15 + 23 - 10 + 1) << 23;
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(bits) + std::bit_cast<float>(kMagic)) - kMagic;
  const uint32_t normal = (bits - (112u << 23) + 0xfff + ((bits >> 13) & 1)) >> 13;
  const uint32_t ends = bits > 0x7f800000 ? 0x7e00 : 0x7c00;
  const uint32_t half = bits >= (143u << 23) ? ends : bits < (113u << 23) ? subnormal : normal;
  return half | (all >> 16 & 0x8000);
}

inline uint32_t bf16_bits(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return (bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded;
}

// A type that the conversions below do not know, or sizes that do not fit: a mistake of the caller.
[[noreturn]] void misuse(Dtype dtype) {
  throw std::logic_error(fmt::format("no conversion for {}, or sizes differ", dtype_name(dtype)));
}

template <class Stored, class Decode>
void decode_each(std::span<const std::byte> values, std::span<float> out, Decode one) {
  const std::byte* in = values.data();
  for (size_t i = 0; i < out.size(); ++i) out[i] = one(load<Stored>(in + i * sizeof(Stored)));
}

template <class Stored, class Encode>
void encode_each(std::span<const float> values, std::span<std::byte> out, Encode one) {
  std::byte* place = out.data();
  for (size_t i = 0; i < values.size(); ++i) {
    const auto stored = static_cast<Stored>(one(values[i]));
    std::memcpy(place + i * sizeof stored, &stored, sizeof stored);
  }
}

template <class Integer>
Integer whole_part(float value) {
  // The limits are powers of two, which float32 has; NaN is on neither side.
  constexpr float kEnd = -static_cast<float>(std::numeric_limits<Integer>::min());
  return value >= -kEnd && value < kEnd ? static_cast<Integer>(value) : 0;
}

}  // namespace

bool is_floating_point(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF64:
    case Dtype::kF32:
    case Dtype::kF16:
    case Dtype::kBF16:
    case Dtype::kF8E4M3:
    case Dtype::kF8E5M2:
    case Dtype::kF8E8M0:
    case Dtype::kF8E4M3Fnuz:
    case Dtype::kF8E5M2Fnuz:
      return true;
    default:
      return false;
  }
}

void to_float32(Dtype from, std::span<const std::byte> values, std::span<float> out) {
  if (values.size() != out.size() * static_cast<size_t>(bit_size(from)) / 8) misuse(from);
  switch (from) {
    case Dtype::kF64:
      return decode_each<double>(values, out, [](double x) { return static_cast<float>(x); });
    case Dtype::kF32:
      if (!out.empty()) std::memcpy(out.data(), values.data(), values.size());
      return;
    case Dtype::kF16:
      return decode_each<uint16_t>(values, out, [](uint32_t x) { return f16_value(x); });
    case Dtype::kBF16:
      return decode_each<uint16_t>(values, out,
                                   [](uint32_t x) { return std::bit_cast<float>(x << 16); });
    case Dtype::kI32:
      return decode_each<int32_t>(values, out, [](int32_t x) { return static_cast<float>(x); });
    case Dtype::kI64:
      return decode_each<int64_t>(values, out, [](int64_t x) { return static_cast<float>(x); });
    case Dtype::kF8E4M3:
      return look_up(kE4M3, values, out);
    case Dtype::kF8E5M2:
      return look_up(kE5M2, values, out);
    case Dtype::kF8E8M0:
      return look_up(kE8M0, values, out);
    case Dtype::kF8E4M3Fnuz:
      return look_up(kE4M3Fnuz, values, out);
    case Dtype::kF8E5M2Fnuz:
      return look_up(kE5M2Fnuz, values, out);
    default:
      misuse(from);
  }
}

void from_float32(std::span<const float> values, Dtype to, std::span<std::byte> out) {
  if (out.size() != values.size() * static_cast<size_t>(bit_size(to)) / 8) misuse(to);
  switch (to) {
    case Dtype::kF64:
      return encode_each<double>(values, out, [](float x) { return x; });
    case Dtype::kF32:
      if (!out.empty()) std::memcpy(out.data(), values.data(), out.size());
      return;
    case Dtype::kF16:
      return encode_each<uint16_t>(values, out, [](float x) { return f16_bits(x); });
    case Dtype::kBF16:
      return encode_each<uint16_t>(values, out, [](float x) { return bf16_bits(x); });
    case Dtype::kI32:
      return encode_each<int32_t>(values, out, whole_part<int32_t>);
    case Dtype::kI64:
      return encode_each<int64_t>(values, out, whole_part<int64_t>);
    default:
      misuse(to);
  }
}

void convert_numbers(Dtype from, std::span<const std::byte> values, Dtype to,
                     std::span<std::byte> out) {
  const size_t from_bytes = static_cast<size_t>(bit_size(from)) / 8;
  const size_t to_bytes = static_cast<size_t>(bit_size(to)) / 8;
  if (from == to) {
    if (values.size() != out.size()) misuse(to);
    if (!out.empty()) std::memcpy(out.data(), values.data(), out.size());
    return;
  }
  if (from_bytes == 0 || to_bytes == 0 || values.size() / from_bytes != out.size() / to_bytes) {
    misuse(from);
  }
  std::array<float, 1024> piece;
  const size_t count = out.size() / to_bytes;
  for (size_t first = 0; first < count; first += piece.size()) {
    const std::span part(piece.data(), std::min(piece.size(), count - first));
    to_float32(from, values.subspan(first * from_bytes, part.size() * from_bytes), part);
    from_float32(part, to, out.subspan(first * to_bytes, part.size() * to_bytes));
  }
}

float f16_to_float32(uint16_t bits) { return f16_value(bits); }
uint16_t float32_to_f16(float value) { return static_cast<uint16_t>(f16_bits(value)); }
uint16_t float32_to_bf16(float value) { return static_cast<uint16_t>(bf16_bits(value)); }
float e8m0_to_float32(uint8_t code) { return kE8M0[code]; }

void mxfp4_to_float32(std::span<const std::byte> rows, std::span<const std::byte> scales,
                      std::span<float> out) {
  std::vector<float> numbers(scales.size());
  to_float32(Dtype::kF8E8M0, scales, numbers);
  mxfp4_to_float32(rows, numbers, out);
}

void mxfp4_to_float32(std::span<const std::byte> rows, std::span<const float> scales,
                      std::span<float> out) {
  constexpr size_t kBytes = 16;
  if (rows.size() != kBytes * scales.size() || out.size() != 2 * rows.size()) misuse(Dtype::kF4);
  for (size_t row = 0; row < scales.size(); ++row) {
    const float scale = scales[row];
    for (size_t i = 0; i < kBytes; ++i) {
      const auto pair = static_cast<uint8_t>(rows[row * kBytes + i]);
      out[2 * (row * kBytes + i)] = kE2M1[pair & 0xf] * scale;
      out[2 * (row * kBytes + i) + 1] = kE2M1[pair >> 4] * scale;
    }
  }
}

}  // namespace qianli::formats
