#include "qianli/data/blend.h"

#include <gtest/gtest.h>

#include <numeric>

#include "qianli/base/error.h"
#include "qianli/data/numpy_random.h"

namespace qianli::data {
namespace {

using Values = std::vector<int64_t>;

Values values(const IndexArray& array) {
  Values result;
  for (int64_t i = 0; i < array.size(); ++i) result.push_back(array[i]);
  return result;
}

TEST(Blend, weighted_order_equals_the_reference) {
  const auto weights = normalise(std::vector<double>{0.3, 0.7});
  const auto sizes = blend_sizes(weights, 12);
  EXPECT_EQ(sizes.targets, (Values{4, 9}));
  EXPECT_EQ(sizes.total, 13);
  const auto order = blend_by_weight(normalise(weights), sizes.total);
  EXPECT_EQ(values(order.dataset), (Values{1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1}));
  EXPECT_EQ(values(order.sample), (Values{0, 0, 1, 2, 1, 3, 4, 2, 5, 6, 3, 7, 8}));
}

TEST(Blend, ties_go_to_the_first_corpus) {
  const auto order = blend_by_weight(std::vector<double>{0.5, 0.3, 0.2}, 10);
  EXPECT_EQ(values(order.dataset), (Values{0, 1, 2, 0, 1, 0, 2, 0, 1, 0}));
}

TEST(Blend, exhaustive_order_equals_the_reference) {
  const auto first = blend_exhaustively(Values{3, 2});
  EXPECT_EQ(values(first.dataset), (Values{0, 1, 0, 1, 0}));
  EXPECT_EQ(values(first.sample), (Values{0, 0, 1, 1, 2}));
  const auto second = blend_exhaustively(Values{3, 4});
  EXPECT_EQ(values(second.dataset), (Values{1, 0, 1, 0, 1, 0, 1}));
  EXPECT_EQ(values(second.sample), (Values{0, 0, 1, 1, 2, 2, 3}));
}

// Known answers of numpy.sum(1 / numpy.arange(1, n + 1)), as float.hex.
TEST(Blend, sums_equal_numpy_to_the_last_bit) {
  const std::pair<int, double> known[] = {
      {3, 0x1.d555555555555p+0},   {7, 0x1.4be2be2be2be2p+1},   {8, 0x1.5be2be2be2be2p+1},
      {13, 0x1.970e9f759a426p+1},  {64, 0x1.2f9be897cd529p+2},  {100, 0x1.4bfdfe4591243p+2},
      {128, 0x1.5bb8ae9541ca7p+2}, {129, 0x1.5c37b09149ba9p+2}, {300, 0x1.92172a3e6965ap+2},
      {1000, 0x1.df11f45f4e61ap+2}};
  for (const auto& [count, expected] : known) {
    std::vector<double> terms;
    for (int i = 1; i <= count; ++i) terms.push_back(1.0 / i);
    EXPECT_EQ(numpy_sum(terms), expected) << count;
  }
}

TEST(DataPaths, pairs_are_weighted_and_odd_lists_are_not) {
  const auto weighted = parse_data_paths(std::vector<std::string>{"0.3", " a ", "7", "b"});
  ASSERT_EQ(weighted.size(), 2u);
  EXPECT_EQ(weighted[0].path, "a");
  EXPECT_EQ(weighted[1].weight, 7.0);
  const auto plain = parse_data_paths(std::vector<std::string>{"a", "b"});
  ASSERT_EQ(plain.size(), 2u);
  EXPECT_FALSE(plain[0].weight.has_value());
  EXPECT_EQ(parse_data_paths(std::vector<std::string>{"1", "b", "c"}).size(), 3u);
}

TEST(DataPaths, half_weighted_lists_are_refused) {
  EXPECT_THROW(parse_data_paths(std::vector<std::string>{"0.5", "a", "b", "c"}), ConfigError);
  EXPECT_THROW(parse_data_paths(std::vector<std::string>{"0", "a", "1", "c"}), ConfigError);
}

}  // namespace
}  // namespace qianli::data
