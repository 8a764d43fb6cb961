// Weights in few bits against bitsandbytes (tools/reference/golden_quantized.py), bit for bit.
#include "qianli/ops/quantized_weight.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "tests/infer/golden.h"
#include "tests/support/engine_support.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {
namespace {

using ops::QuantizedWeight;
using ops::WeightCode;

at::Tensor golden(const std::string& name) {
  return read_tensor(source_path("tests/golden/quantized.safetensors"), name);
}

QuantizedWeight encoded(const at::Tensor& values, WeightCode code, bool nested) {
  QuantizedWeight weight(values.sizes().vec(), code, nested, values.options());
  // In two parts, the last one first.
  const at::Tensor all = values.view(-1);
  const int64_t half = all.numel() / 2 + 1;
  weight.write(half, all.narrow(0, half, all.numel() - half));
  weight.write(0, all.narrow(0, 0, half));
  return weight;
}

void expect_bits(const at::Tensor& actual, const at::Tensor& expected, const std::string& what) {
  EXPECT_TRUE(at::equal(actual.view(-1), expected.view(-1))) << what;
}

class QuantizedWeightOf : public ::testing::TestWithParam<std::string> {};

TEST_P(QuantizedWeightOf, nf4_is_that_of_bitsandbytes) {
  const auto of = [&](const std::string& name) { return golden(GetParam() + "." + name); };
  const auto weight = encoded(of("values"), WeightCode::kNf4, /*nested=*/false);
  expect_bits(weight.codes(), of("nf4.codes"), "codes");
  expect_bits(weight.absmax(), of("nf4.absmax"), "magnitudes");
  expect_bits(weight.value(), of("nf4.numbers"), "numbers");
}

TEST_P(QuantizedWeightOf, nested_magnitudes_are_those_of_bitsandbytes) {
  const auto of = [&](const std::string& name) { return golden(GetParam() + "." + name); };
  const auto weight = encoded(of("values"), WeightCode::kNf4, /*nested=*/true);
  expect_bits(weight.codes(), of("nf4.codes"), "codes");
  expect_bits(weight.nested_absmax(), of("nested.nested_absmax"), "nested magnitudes");
  expect_bits(weight.absmax(), of("nested.absmax"), "codes of magnitudes");
  EXPECT_EQ(static_cast<float>(weight.offset()), of("nested.offset").item<float>());
  expect_bits(weight.value(), of("nested.numbers"), "numbers");
}

TEST_P(QuantizedWeightOf, int8_is_that_of_bitsandbytes) {
  const auto of = [&](const std::string& name) { return golden(GetParam() + "." + name); };
  const auto weight = encoded(of("values"), WeightCode::kInt8, /*nested=*/false);
  // Its library makes whatever not-a-number becomes of a row of zeros.
  const at::Tensor expected = of("int8.codes").clone();
  expected[2].zero_();
  expect_bits(weight.codes(), expected, "codes");
  expect_bits(weight.absmax(), of("int8.absmax"), "magnitudes");
  for (const int64_t row : {0, 1, 3, 5})
    expect_bits(weight.value()[row], of("int8.numbers")[row], "numbers");
}

INSTANTIATE_TEST_SUITE_P(Shapes, QuantizedWeightOf, ::testing::Values("small", "large"));

TEST(QuantizedWeight, HasTheMapsOfBitsandbytes) {
  expect_bits(at::tensor(ops::dynamic_map()), golden("dynamic_map"), "dynamic map");
  expect_bits(at::tensor(ops::nf4_numbers()), golden("nf4"), "NF4");
}

TEST(QuantizedWeight, ErrsByHalfTheLargestGap) {
  const at::Tensor values = at::rand({32, 64}) * 2 - 1;
  const auto weight = encoded(values, WeightCode::kNf4, /*nested=*/false);
  const at::Tensor error = (weight.value() - values).abs().amax(1) / values.abs().amax(1);
  EXPECT_LE(error.max().item<double>(), 0.1520);
  EXPECT_GT(error.max().item<double>(), 0.1);
  EXPECT_EQ(weight.bytes(), 32U * 64U / 2U + 32U * 4U);
}

}  // namespace
}  // namespace qianli::testing
