#include "qianli/data/row_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "qianli/base/error.h"
#include "qianli/data/numpy_random.h"

namespace qianli::data {
namespace {

using Samples = std::vector<int32_t>;

std::vector<Samples> rows_of(const RowOrder& order) {
  std::vector<Samples> rows;
  for (int64_t i = 0; i < order.rows(); ++i)
    rows.emplace_back(order.row(i).begin(), order.row(i).end());
  return rows;
}

const Samples kSamples = {10, 11, 12, 13, 14, 15}, kLengths = {3, 9, 4, 7, 2, 5};

TEST(RowOrder, single_samples_come_in_the_order_of_NumPy) {
  const RowOrder order = order_rows(kSamples, kLengths, {.seed = 7}, {.epochs = 2});
  RandomState random(7);
  Samples expected;
  for (int epoch = 0; epoch < 2; ++epoch) {
    Samples one = kSamples;
    random.shuffle(std::span(one));
    expected.insert(expected.end(), one.begin(), one.end());
  }
  EXPECT_EQ(order.samples, expected);
  EXPECT_EQ(order.rows(), 12);
  EXPECT_EQ(order.epochs_of(0), 0.0);
  EXPECT_EQ(order.epochs_of(3), 0.5);
  EXPECT_EQ(order.epochs_of(9), 1.5);
}

TEST(RowOrder, samples_join_a_row_as_they_come) {
  const RowOrder order =
      order_rows(kSamples, kLengths,
                 {.packing = RowPacking::kGreedy, .capacity = 12, .shuffle = false}, {.epochs = 1});
  EXPECT_EQ(rows_of(order), (std::vector<Samples>{{10, 11}, {12, 13}, {14, 15}}));
}

TEST(RowOrder, best_rows_are_few) {
  const RowOrder order = order_rows(
      kSamples, kLengths, {.packing = RowPacking::kBestFit, .capacity = 14, .shuffle = false},
      {.epochs = 1});
  EXPECT_EQ(rows_of(order), (std::vector<Samples>{{11, 15}, {13, 12, 10}, {14}}));
}

TEST(RowOrder, every_sample_comes_once_in_an_epoch) {
  Samples samples(500), lengths;
  std::iota(samples.begin(), samples.end(), 0);
  RandomState random(3);
  for (size_t i = 0; i < samples.size(); ++i)
    lengths.push_back(1 + static_cast<int32_t>(random.draw(99)));
  for (const RowPacking packing : {RowPacking::kNone, RowPacking::kGreedy, RowPacking::kBestFit}) {
    const RowOptions options{.packing = packing, .capacity = 128, .seed = 5};
    const RowOrder order = order_rows(samples, lengths, options, {.epochs = 3});
    int64_t first = 0;
    for (const int64_t end : order.epoch_ends) {
      Samples seen;
      for (int64_t row = first; row < end; ++row) {
        int64_t tokens = 0;
        for (const int32_t sample : order.row(row)) {
          seen.push_back(sample);
          tokens += lengths[static_cast<size_t>(sample)];
        }
        EXPECT_LE(tokens, 128);
      }
      std::ranges::sort(seen);
      EXPECT_EQ(seen, samples);
      first = end;
    }
    // A longer run begins as a shorter one.
    const RowOrder shorter = order_rows(samples, lengths, options, {.rows = 20});
    ASSERT_LE(shorter.samples.size(), order.samples.size());
    EXPECT_TRUE(std::equal(shorter.samples.begin(), shorter.samples.end(), order.samples.begin()));
    EXPECT_NE(Samples(order.samples.begin(), order.samples.begin() + 500),
              Samples(order.samples.begin() + 500, order.samples.begin() + 1000));
  }
  EXPECT_THROW(row_packing("tight"), ConfigError);
}

int64_t tokens_of(const std::vector<int64_t>& lengths, const std::vector<int64_t>& rows) {
  int64_t tokens = 0;
  for (const int64_t row : rows) tokens += lengths[static_cast<size_t>(row)];
  return tokens;
}

TEST(SplitByTokens, deals_every_row_out_once_within_the_budget) {
  RandomState random(11);
  for (const int64_t ranks : {1, 2, 4}) {
    for (const int64_t multiple : {1, 2, 4}) {
      std::vector<int64_t> lengths;
      for (int i = 0; i < 64; ++i) lengths.push_back(1 + static_cast<int64_t>(random.draw(99)));
      const auto bins = split_by_tokens(lengths, 256, ranks, multiple);
      ASSERT_EQ(bins.size() % static_cast<size_t>(ranks * multiple), 0u);
      std::vector<int64_t> seen;
      for (const auto& bin : bins) {
        EXPECT_LE(tokens_of(lengths, bin), 256);
        seen.insert(seen.end(), bin.begin(), bin.end());
      }
      std::ranges::sort(seen);
      std::vector<int64_t> all(64);
      std::iota(all.begin(), all.end(), 0);
      EXPECT_EQ(seen, all);
      // Ranks work side by side on equally much.
      for (size_t m = 0; m < bins.size(); m += static_cast<size_t>(ranks)) {
        const auto most = tokens_of(lengths, bins[m]),
                   least = tokens_of(lengths, bins[m + static_cast<size_t>(ranks) - 1]);
        EXPECT_LE(most - least, 100);
      }
    }
  }
}

TEST(SplitByTokens, long_rows_are_alone_and_missing_ones_leave_room) {
  const std::vector<int64_t> lengths = {500, 3, 4};
  const auto bins = split_by_tokens(lengths, 10, 1, 1);
  EXPECT_EQ(bins, (std::vector<std::vector<int64_t>>{{0}, {2, 1}}));
  const auto few = split_by_tokens(std::vector<int64_t>{5}, 10, 2, 1);
  EXPECT_EQ(few, (std::vector<std::vector<int64_t>>{{0}, {}}));
}

}  // namespace
}  // namespace qianli::data
