#include "qianli/formats/number_formats.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "qianli/formats/safetensors.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

// The golden file is made by torch and transformers (tools/reference/check_formats.py).
SafetensorsFile golden() {
  return SafetensorsFile::open(testing::source_path("tests/golden/formats/numbers.safetensors"));
}

template <class T>
std::vector<T> values(const TensorEntry& entry) {
  std::vector<T> copy(entry.bytes.size() / sizeof(T));
  std::memcpy(copy.data(), entry.bytes.data(), entry.bytes.size());
  return copy;
}

// Equal bits, but any NaN equals any other.
void expect_same_numbers(std::span<const float> actual, std::span<const float> expected,
                         std::string_view what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(expected[i]) && std::isnan(actual[i])) continue;
    ASSERT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(expected[i]))
        << what << ", element " << i << ": " << actual[i] << " instead of " << expected[i];
  }
}

float f16_by_definition(uint32_t bits) {
  const int exponent = bits >> 10 & 31;
  const int mantissa = bits & 1023;
  const float sign = bits & 0x8000 ? -1.0f : 1.0f;
  if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
}

TEST(number_formats, all_codes_of_the_one_byte_types_are_those_of_torch) {
  const auto file = golden();
  std::vector<std::byte> codes(256);
  for (int i = 0; i < 256; ++i) codes[static_cast<size_t>(i)] = static_cast<std::byte>(i);
  for (const Dtype dtype :
       {Dtype::kF8E4M3, Dtype::kF8E5M2, Dtype::kF8E8M0, Dtype::kF8E4M3Fnuz, Dtype::kF8E5M2Fnuz}) {
    std::vector<float> out(256);
    to_float32(dtype, codes, out);
    const std::string name(dtype_name(dtype));
    expect_same_numbers(out, values<float>(file.at(name)), name);
  }
}

TEST(number_formats, all_halves_are_what_their_bits_say_and_come_back) {
  std::vector<uint16_t> codes(65536);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint16_t>(i);
  std::vector<float> floats(codes.size()), expected(codes.size());
  for (uint32_t i = 0; i < codes.size(); ++i) expected[i] = f16_by_definition(i);
  to_float32(Dtype::kF16, std::as_bytes(std::span(codes)), floats);
  expect_same_numbers(floats, expected, "F16");
  std::vector<uint16_t> back(codes.size());
  from_float32(floats, Dtype::kF16, std::as_writable_bytes(std::span(back)));
  for (size_t i = 0; i < codes.size(); ++i) {
    if (std::isnan(floats[i])) continue;
    ASSERT_EQ(f16_to_float32(codes[i]), floats[i]) << i;
    ASSERT_EQ(back[i], codes[i]);
  }
}

TEST(number_formats, halves_round_to_nearest_and_ties_to_even) {
  for (uint32_t code = 0; code < 0x7c00; ++code) {
    const float low = f16_by_definition(code);
    // Behind the largest half, the next one would be 2^16.
    const float high = code == 0x7bff ? 65536.0f : f16_by_definition(code + 1);
    const float middle = low + (high - low) / 2;
    const uint32_t even = code % 2 == 0 ? code : code + 1;
    ASSERT_EQ(float32_to_f16(middle), even) << middle;
    ASSERT_EQ(float32_to_f16(std::nextafter(middle, 0.0f)), code) << middle;
    ASSERT_EQ(float32_to_f16(std::nextafter(middle, INFINITY)), code + 1) << middle;
    ASSERT_EQ(float32_to_f16(-middle), even | 0x8000) << middle;
  }
}

TEST(number_formats, rounding_agrees_with_torch) {
  const auto file = golden();
  const auto floats = values<float>(file.at("floats"));
  for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16}) {
    const auto expected = values<uint16_t>(file.at(std::string(dtype_name(dtype))));
    std::vector<uint16_t> out(floats.size());
    from_float32(floats, dtype, std::as_writable_bytes(std::span(out)));
    ASSERT_GT(out.size(), 1000u);
    EXPECT_EQ(out, expected) << dtype_name(dtype);
  }
  EXPECT_EQ(float32_to_bf16(std::bit_cast<float>(0x7f800001u)), 0x7fc0);  // a NaN stays a NaN
  EXPECT_TRUE(std::isnan(f16_to_float32(float32_to_f16(NAN))));
}

TEST(number_formats, converts_between_any_two_types) {
  std::vector<double> doubles(3000);
  for (size_t i = 0; i < doubles.size(); ++i) doubles[i] = std::sin(static_cast<double>(i)) * 100;
  std::vector<uint16_t> bf16(doubles.size());
  convert_numbers(Dtype::kF64, std::as_bytes(std::span(doubles)), Dtype::kBF16,
                  std::as_writable_bytes(std::span(bf16)));
  std::vector<double> back(doubles.size());
  convert_numbers(Dtype::kBF16, std::as_bytes(std::span(bf16)), Dtype::kF64,
                  std::as_writable_bytes(std::span(back)));
  for (size_t i = 0; i < doubles.size(); ++i) {
    ASSERT_EQ(bf16[i], float32_to_bf16(static_cast<float>(doubles[i])));
    ASSERT_NEAR(back[i], doubles[i], std::abs(doubles[i]) / 256);
  }
  // Equal types are copied, whatever the bits mean.
  const uint64_t bits = 0x7ff0000000000001;
  uint64_t copy = 0;
  convert_numbers(Dtype::kF64, std::as_bytes(std::span(&bits, 1)), Dtype::kF64,
                  std::as_writable_bytes(std::span(&copy, 1)));
  EXPECT_EQ(copy, bits);
}

TEST(number_formats, other_types_and_sizes_are_mistakes_of_the_caller) {
  std::vector<std::byte> bytes(8);
  std::vector<float> floats(2);
  EXPECT_THROW(to_float32(Dtype::kI16, std::span(bytes).first(4), floats), std::logic_error);
  EXPECT_THROW(to_float32(Dtype::kF16, bytes, floats), std::logic_error);
  EXPECT_THROW(from_float32(floats, Dtype::kF8E4M3, std::span(bytes).first(2)), std::logic_error);
  EXPECT_FALSE(is_floating_point(Dtype::kI64));
  EXPECT_TRUE(is_floating_point(Dtype::kF8E8M0));
}

TEST(number_formats, mxfp4_is_what_transformers_makes_of_it) {
  const auto file = golden();
  const TensorEntry& blocks = file.at("mxfp4.experts_blocks");
  const TensorEntry& scales = file.at("mxfp4.experts_scales");
  std::vector<float> out(blocks.bytes.size() * 2);
  mxfp4_to_float32(blocks.bytes, scales.bytes, out);
  // The file has [experts, in, out]; the blocks are [experts, out, in / 32, 16].
  const auto expected = values<float>(file.at("mxfp4.expected"));
  const size_t experts = 2, in = 64, num_out = 18;
  ASSERT_EQ(expected.size(), experts * in * num_out);
  std::vector<float> transposed(out.size());
  for (size_t e = 0; e < experts; ++e) {
    for (size_t o = 0; o < num_out; ++o) {
      for (size_t i = 0; i < in; ++i) {
        transposed[(e * in + i) * num_out + o] = out[(e * num_out + o) * in + i];
      }
    }
  }
  expect_same_numbers(transposed, expected, "MXFP4");
}

}  // namespace
}  // namespace qianli::formats
