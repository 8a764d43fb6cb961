#include "qianli/data/sequence_slice.h"

#include <gtest/gtest.h>

#include "qianli/data/context_deal.h"

namespace qianli::data {
namespace {

using Values = std::vector<int64_t>;

// Two rows of six tokens; the first holds documents of two and four.
Batch two_rows() {
  Batch batch{.sequences = 2, .sequence_length = 6};
  for (int64_t i = 0; i < 12; ++i) {
    batch.tokens.push_back(100 + i);
    batch.labels.push_back(101 + i);
    batch.loss_mask.push_back(i % 3 == 0 ? 0.0f : 1.0f);
    batch.positions.push_back(i < 2 ? i : i < 6 ? i - 2 : i - 6);
  }
  batch.segment_ends = {2, 6, 12};
  batch.sample_indices = {7, 9};
  return batch;
}

TEST(SequenceSlice, has_the_same_positions_of_every_row) {
  const Batch slice = slice_of(two_rows(), 1, 4, 1);
  EXPECT_EQ(slice.tokens, (Values{101, 102, 103, 107, 108, 109}));
  EXPECT_EQ(slice.labels, (Values{102, 103, 104, 108, 109, 110}));
  EXPECT_EQ(slice.positions, (Values{1, 0, 1, 1, 2, 3}));
  EXPECT_EQ(slice.max_position, 5);
  EXPECT_EQ(slice.segment_ends, (Values{1, 3, 6}));
  EXPECT_EQ(slice.slice->positions, (Values{1, 0, 1}));
  EXPECT_EQ(slice.slice->segment_starts, (Values{0, 2, 6, 12}));
  // Token 101 is the last of its document.
  EXPECT_EQ(slice.ahead.at(0).tokens, (Values{0, 103, 104, 108, 109, 110}));
  const int64_t first = int64_t{7} << 32, second = int64_t{9} << 32;
  EXPECT_EQ(token_origins(slice),
            (Values{first + 1, first + 2, first + 3, second + 1, second + 2, second + 3}));
  EXPECT_EQ(segment_origins(slice), (Values{first, first + 2, second}));
}

TEST(SequenceSlice, documents_that_it_has_nothing_of_come_empty) {
  const Batch slice = slice_of(two_rows(), 4, 6, 0);
  EXPECT_EQ(slice.tokens, (Values{104, 105, 110, 111}));
  EXPECT_EQ(slice.segment_ends, (Values{0, 2, 4}));
  EXPECT_EQ(slice.slice->positions, (Values{2, 2, 4}));
}

}  // namespace
}  // namespace qianli::data
