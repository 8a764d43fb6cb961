#include "qianli/base/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace qianli {
namespace {

// Known answers of the Random123 distribution (kat_vectors, philox4x32 10 rounds).
TEST(Philox, matches_the_published_vectors) {
  const auto zero = philox4x32(0, 0, 0);
  EXPECT_EQ(zero, (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const auto ones = philox4x32(~0ull, ~0ull, ~0ull);
  EXPECT_EQ(ones, (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(FillNormal, any_slice_equals_the_whole) {
  const uint64_t key = random_key(7, "layers.0.weight");
  std::vector<float> whole(101);
  fill_normal(key, 0, whole.size(), 0.5, 2.0, whole.data());
  for (const uint64_t first : {0u, 1u, 2u, 37u}) {
    for (const uint64_t count : {0u, 1u, 2u, 5u, 64u}) {
      std::vector<float> slice(count);
      fill_normal(key, first, count, 0.5, 2.0, slice.data());
      for (uint64_t i = 0; i < count; ++i)
        EXPECT_EQ(slice[i], whole[first + i]) << first << " " << i;
    }
  }
}

TEST(FillNormal, has_the_moments_of_a_normal) {
  std::vector<float> x(200000);
  fill_normal(random_key(1, "x"), 0, x.size(), 0.0, 1.0, x.data());
  double sum = 0, squares = 0, fourth = 0;
  for (const float v : x) {
    sum += v;
    squares += double(v) * v;
    fourth += std::pow(double(v), 4);
  }
  const double n = static_cast<double>(x.size());
  EXPECT_NEAR(sum / n, 0.0, 0.01);
  EXPECT_NEAR(squares / n, 1.0, 0.02);
  EXPECT_NEAR(fourth / n, 3.0, 0.1);
}

TEST(RandomKey, differs_by_seed_and_name) {
  EXPECT_NE(random_key(1, "a"), random_key(2, "a"));
  EXPECT_NE(random_key(1, "a"), random_key(1, "b"));
}

}  // namespace
}  // namespace qianli
