// Each function below turns one block into floats. The order of multiplications and additions is
// part of the format's result, so none of them is contracted or reordered.
#include "qianli/formats/ggml_blocks.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "qianli/formats/little_endian.h"
#include "qianli/formats/number_formats.h"

namespace qianli::formats {
namespace {

using Block = const std::byte*;

inline uint8_t byte_at(Block block, size_t i) { return static_cast<uint8_t>(block[i]); }
inline float half_at(Block block, size_t i) { return f16_to_float32(load<uint16_t>(block + i)); }
inline float low(uint8_t pair) { return static_cast<float>(pair & 0xf); }
inline float high(uint8_t pair) { return static_cast<float>(pair >> 4); }

void q4_0(Block block, float* out) {
  const float scale = half_at(block, 0);
  for (size_t i = 0; i < 16; ++i) {
    const uint8_t pair = byte_at(block, 2 + i);
    out[i] = scale * (low(pair) - 8.0f);
    out[i + 16] = scale * (high(pair) - 8.0f);
  }
}

void q4_1(Block block, float* out) {
  const float scale = half_at(block, 0), least = half_at(block, 2);
  for (size_t i = 0; i < 16; ++i) {
    const uint8_t pair = byte_at(block, 4 + i);
    out[i] = scale * low(pair) + least;
    out[i + 16] = scale * high(pair) + least;
  }
}

// The fifth bit of element i is bit i of a word of its own.
inline float fifth(uint32_t bits, size_t i) { return static_cast<float>((bits >> i & 1) << 4); }

void q5_0(Block block, float* out) {
  const float scale = half_at(block, 0);
  const auto bits = load<uint32_t>(block + 2);
  for (size_t i = 0; i < 16; ++i) {
    const uint8_t pair = byte_at(block, 6 + i);
    out[i] = scale * (low(pair) + fifth(bits, i) - 16.0f);
    out[i + 16] = scale * (high(pair) + fifth(bits, i + 16) - 16.0f);
  }
}

void q5_1(Block block, float* out) {
  const float scale = half_at(block, 0), least = half_at(block, 2);
  const auto bits = load<uint32_t>(block + 4);
  for (size_t i = 0; i < 16; ++i) {
    const uint8_t pair = byte_at(block, 8 + i);
    out[i] = scale * (low(pair) + fifth(bits, i)) + least;
    out[i + 16] = scale * (high(pair) + fifth(bits, i + 16)) + least;
  }
}

void q8_0(Block block, float* out) {
  const float scale = half_at(block, 0);
  for (size_t i = 0; i < 32; ++i) {
    out[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * scale;
  }
}

// 16 groups of 16: four bits of scale and of offset each; two bits per element.
void q2_k(Block block, float* out) {
  const float scale = half_at(block, 80), offset = half_at(block, 82);
  for (size_t group = 0; group < 16; ++group) {
    const uint8_t both = byte_at(block, group);
    const float group_scale = scale * low(both), group_offset = offset * high(both);
    const size_t bytes = 16 + 32 * (group / 8) + 16 * (group % 2), shift = 2 * (group / 2 % 4);
    for (size_t i = 0; i < 16; ++i) {
      const float value = static_cast<float>(byte_at(block, bytes + i) >> shift & 3);
      out[16 * group + i] = group_scale * value - group_offset;
    }
  }
}

// 16 groups of 16: scales of six bits; elements of two bits and, in a mask, the third.
void q3_k(Block block, float* out) {
  const float scale = half_at(block, 108);
  for (size_t group = 0; group < 16; ++group) {
    const uint8_t four = byte_at(block, 96 + group % 8) >> (group < 8 ? 0 : 4) & 0xf;
    const uint8_t two = byte_at(block, 104 + group % 4) >> 2 * (group / 4) & 3;
    const float group_scale = scale * static_cast<float>((four | two << 4) - 32);
    const size_t bytes = 32 + 32 * (group / 8) + 16 * (group % 2), shift = 2 * (group / 2 % 4);
    for (size_t i = 0; i < 16; ++i) {
      const int value = byte_at(block, bytes + i) >> shift & 3;
      const int third = byte_at(block, 16 * (group % 2) + i) >> (group / 2) & 1;
      out[16 * group + i] = group_scale * static_cast<float>(value - (third ? 0 : 4));
    }
  }
}

struct ScaleAndOffset {
  float scale, offset;
};

// Six bits of scale and of offset for each of eight groups, in twelve bytes (Q4_K and Q5_K).
ScaleAndOffset six_bits(Block block, size_t group) {
  if (group < 4) {
    return {static_cast<float>(byte_at(block, group) & 0x3f),
            static_cast<float>(byte_at(block, 4 + group) & 0x3f)};
  }
  const uint8_t both = byte_at(block, 4 + group);
  return {static_cast<float>((both & 0xf) | (byte_at(block, group - 4) >> 2 & 0x30)),
          static_cast<float>(both >> 4 | (byte_at(block, group) >> 2 & 0x30))};
}

void q4_k(Block block, float* out) {
  const float scale = half_at(block, 0), offset = half_at(block, 2);
  for (size_t group = 0; group < 8; ++group) {
    const auto [six_scale, six_offset] = six_bits(block + 4, group);
    const float group_scale = scale * six_scale, group_offset = offset * six_offset;
    const size_t bytes = 16 + 32 * (group / 2), shift = 4 * (group % 2);
    for (size_t i = 0; i < 32; ++i) {
      const float value = static_cast<float>(byte_at(block, bytes + i) >> shift & 0xf);
      out[32 * group + i] = group_scale * value - group_offset;
    }
  }
}

void q5_k(Block block, float* out) {
  const float scale = half_at(block, 0), offset = half_at(block, 2);
  for (size_t group = 0; group < 8; ++group) {
    const auto [six_scale, six_offset] = six_bits(block + 4, group);
    const float group_scale = scale * six_scale, group_offset = offset * six_offset;
    const size_t bytes = 48 + 32 * (group / 2), shift = 4 * (group % 2);
    for (size_t i = 0; i < 32; ++i) {
      const int four = byte_at(block, bytes + i) >> shift & 0xf;
      const int fifth_bit = byte_at(block, 16 + i) >> group & 1;
      out[32 * group + i] = group_scale * static_cast<float>(four | fifth_bit << 4) - group_offset;
    }
  }
}

// 16 groups of 16 with signed scales; four low bits and two high bits per element.
void q6_k(Block block, float* out) {
  const float scale = half_at(block, 208);
  for (size_t i = 0; i < 256; ++i) {
    const size_t part = i / 128, row = i % 128 / 32, column = i % 32;
    const int four = byte_at(block, 64 * part + 32 * (row % 2) + column) >> 4 * (row / 2) & 0xf;
    const int two = byte_at(block, 128 + 32 * part + column) >> 2 * row & 3;
    const auto group_scale = static_cast<float>(static_cast<int8_t>(block[192 + i / 16]));
    out[i] = (scale * group_scale) * static_cast<float>((four | two << 4) - 32);
  }
}

// float32 scale and 256 signed bytes; the sums behind them serve dot products only.
void q8_k(Block block, float* out) {
  const auto scale = load<float>(block);
  for (size_t i = 0; i < 256; ++i) {
    out[i] = scale * static_cast<float>(static_cast<int8_t>(block[4 + i]));
  }
}

void mxfp4(Block block, float* out) {
  // Twice the value of E2M1, and half the scale, so that all are whole numbers.
  constexpr std::array<float, 16> kTwice{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  const uint32_t code = byte_at(block, 0);
  const uint32_t bits = code < 2 ? 0x00200000u << code : (code - 1) << 23;
  const float scale = std::bit_cast<float>(bits);
  for (size_t i = 0; i < 16; ++i) {
    const uint8_t pair = byte_at(block, 1 + i);
    out[i] = scale * kTwice[pair & 0xf];
    out[i + 16] = scale * kTwice[pair >> 4];
  }
}

using Decoder = void (*)(Block, float*);

Decoder decoder(GgmlType type) {
  switch (type) {
    case GgmlType::kQ4_0:
      return q4_0;
    case GgmlType::kQ4_1:
      return q4_1;
    case GgmlType::kQ5_0:
      return q5_0;
    case GgmlType::kQ5_1:
      return q5_1;
    case GgmlType::kQ8_0:
      return q8_0;
    case GgmlType::kQ2_K:
      return q2_k;
    case GgmlType::kQ3_K:
      return q3_k;
    case GgmlType::kQ4_K:
      return q4_k;
    case GgmlType::kQ5_K:
      return q5_k;
    case GgmlType::kQ6_K:
      return q6_k;
    case GgmlType::kQ8_K:
      return q8_k;
    case GgmlType::kMXFP4:
      return mxfp4;
    default:
      return nullptr;
  }
}

void check_blocks(GgmlType type, std::span<const float> values, std::span<const std::byte> blocks) {
  const auto traits = ggml_traits(static_cast<uint32_t>(type));
  const size_t size = traits->block_size, bytes = traits->block_bytes;
  if (values.size() % size == 0 && values.size() / size * bytes == blocks.size()) return;
  throw std::logic_error(
      fmt::format("{} numbers to {} bytes of {}", values.size(), blocks.size(), traits->name));
}

}  // namespace

bool can_dequantize(GgmlType type) { return decoder(type) != nullptr; }

void dequantize(GgmlType type, std::span<const std::byte> blocks, std::span<float> out) {
  const Decoder decode = decoder(type);
  const auto traits = ggml_traits(static_cast<uint32_t>(type));
  if (!decode || blocks.size() % traits->block_bytes != 0 ||
      blocks.size() / traits->block_bytes != out.size() / traits->block_size ||
      out.size() % traits->block_size != 0) {
    throw std::logic_error(fmt::format("{} bytes of type {} to {} numbers", blocks.size(),
                                       static_cast<uint32_t>(type), out.size()));
  }
  const size_t count = blocks.size() / traits->block_bytes;
  for (size_t i = 0; i < count; ++i) {
    decode(blocks.data() + i * traits->block_bytes, out.data() + i * traits->block_size);
  }
}

void quantize_q8_0(std::span<const float> values, std::span<std::byte> blocks) {
  constexpr size_t kSize = 32, kBytes = 34;
  check_blocks(GgmlType::kQ8_0, values, blocks);
  for (size_t block = 0; block < values.size() / kSize; ++block) {
    const float* in = values.data() + block * kSize;
    std::byte* out = blocks.data() + block * kBytes;
    float largest = 0;
    for (size_t i = 0; i < kSize; ++i) largest = std::max(largest, std::abs(in[i]));
    const float scale = largest / 127.0f;
    const float inverse = scale == 0 ? 0.0f : 1.0f / scale;
    const uint16_t half = float32_to_f16(scale);
    std::memcpy(out, &half, sizeof half);
    for (size_t i = 0; i < kSize; ++i) {
      // Ties away from zero. Rounding may lift the largest magnitude above 127, by less than a
      // half.
      const float scaled = std::abs(in[i] * inverse);
      const float whole = std::floor(scaled);
      const float rounded = whole + std::floor(2.0f * (scaled - whole));
      const int magnitude = rounded <= 127.0f ? static_cast<int>(rounded) : 0;
      const int code = std::signbit(in[i]) ? -magnitude : magnitude;
      out[2 + i] = static_cast<std::byte>(code);
    }
  }
}

void quantize_q4_0(std::span<const float> values, std::span<std::byte> blocks) {
  constexpr size_t kSize = 32, kBytes = 18;
  check_blocks(GgmlType::kQ4_0, values, blocks);
  for (size_t block = 0; block < values.size() / kSize; ++block) {
    const float* in = values.data() + block * kSize;
    std::byte* out = blocks.data() + block * kBytes;
    float largest = 0;
    for (size_t i = 0; i < kSize; ++i) {
      if (std::abs(in[i]) > std::abs(largest)) largest = in[i];
    }
    const float scale = largest / -8.0f;
    const float inverse = scale == 0 ? 0.0f : 1.0f / scale;
    const uint16_t half = float32_to_f16(scale);
    std::memcpy(out, &half, sizeof half);
    const auto code = [&](size_t i) {  // in double, where no product is rounded
      const double shifted = static_cast<double>(in[i]) * inverse + 8.5;
      return shifted >= 0 ? static_cast<uint8_t>(std::min(shifted, 15.0)) : uint8_t{0};
    };
    for (size_t i = 0; i < kSize / 2; ++i)
      out[2 + i] = static_cast<std::byte>(code(i) | code(i + kSize / 2) << 4);
  }
}

}  // namespace qianli::formats
