#include "qianli/ops/dropout.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "qianli/base/random.h"
#include "tests/ops/op_harness.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

// The tokens of one sample from position `first` on.
at::Tensor origins(int64_t sample, int64_t first, int64_t count) {
  return at::arange(first, first + count, at::kLong) + (sample << 32);
}

TEST(Dropout, kernels_and_gradients) {
  for (const int64_t width : {1, 7, 8, 40, 133, 300}) {
    check_all({.name = "width " + std::to_string(width),
               .op = "dropout",
               .inputs = {normal({5, width}, 1)},
               .run = [](const Tensors& x, const Parameters&) {
                 return ops::dropout(x[0], ops::dropout_of(0.4, 0xfedcba9876543210),
                                     origins(3, 1000, 5));
               }});
  }
}

TEST(Dropout, drops_what_the_generator_says) {
  const int64_t rows = 3, width = 50;
  const at::Tensor where = origins(12, 7, rows);
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const at::Tensor y =
        ops::dropout(at::ones({rows, width}, dtype), ops::dropout_of(0.5, 5), where);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < width; ++c) {
        const auto words = philox4x32(5, static_cast<uint64_t>(where[r].item<int64_t>()),
                                      static_cast<uint64_t>(c / 8));
        const uint32_t bits = words[static_cast<size_t>(c % 8 / 2)] >> (c % 2 * 16) & 0xffff;
        EXPECT_EQ(y[r][c].item<double>(), bits >= 32768 ? 2.0 : 0.0) << r << ' ' << c;
      }
    }
  }
}

// What is dropped of ones under one key.
at::Tensor dropped(double rate, uint64_t key, const at::Tensor& where) {
  return ops::dropout(at::ones({where.size(0), 512}), ops::dropout_of(rate, key), where).eq(0);
}

TEST(Dropout, keeps_the_rate_and_the_mean) {
  for (const double rate : {0.01, 0.1, 0.5, 0.9}) {
    const at::Tensor where = origins(1, 0, 400);
    const double n = 400 * 512, deviation = std::sqrt(rate * (1 - rate) / n);
    EXPECT_NEAR(dropped(rate, 9, where).to(at::kDouble).mean().item<double>(), rate,
                5 * deviation + 1e-5);
    const ops::Dropout dropout = ops::dropout_of(rate, 9);
    EXPECT_NEAR(dropout.scale * (1 - dropout.threshold / 65536.0), 1.0, 1e-15);
  }
  EXPECT_EQ(ops::dropout_of(1e-9, 0).threshold, 1U);
  EXPECT_EQ(ops::dropout_of(0.0, 0).threshold, 0U);
  EXPECT_THROW(ops::dropout_of(1.0, 0), c10::Error);
  EXPECT_THROW(ops::dropout_of(-0.1, 0), c10::Error);
}

// Two masks drop the same element as often as chance has it.
TEST(Dropout, is_independent_between_keys_tokens_and_samples) {
  const at::Tensor one = dropped(0.3, 9, origins(1, 0, 400));
  for (const at::Tensor& other :
       {dropped(0.3, 10, origins(1, 0, 400)), dropped(0.3, 9, origins(2, 0, 400)),
        dropped(0.3, 9, origins(1, 1, 400)), dropped(0.3, uint64_t{9} << 32, origins(1, 0, 400)),
        one.roll(1, 1), one.roll(8, 1)}) {
    const double both = one.logical_and(other).to(at::kDouble).mean().item<double>();
    EXPECT_NEAR(both, 0.09, 5 * std::sqrt(0.09 * 0.91 / (400 * 512)));
  }
}

}  // namespace
}  // namespace qianli::testing
