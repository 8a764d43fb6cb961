#include "qianli/data/token_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "qianli/base/random.h"
#include "qianli/data/context_deal.h"

namespace qianli::testing {
namespace {

using data::ContextMask;
using data::PlaceParts;

// Documents of drawn lengths.
ContextMask drawn(uint64_t number, int64_t tokens) {
  const uint64_t key = random_key(number, "mask");
  const auto draw = [&](uint64_t i, int64_t below) {
    return static_cast<int64_t>(uniform_at(key, i) * static_cast<double>(below));
  };
  ContextMask mask{{0}, draw(0, 3) > 0, draw(1, 2) * (1 + draw(2, tokens / 2))};
  const int64_t longest = 2 + draw(3, tokens);
  for (uint64_t i = 4; mask.tokens() < tokens; ++i)
    mask.segment_starts.push_back(std::min(tokens, mask.tokens() + draw(i, longest)));
  return mask;
}

bool visible(const ContextMask& mask, int64_t query, int64_t key) {
  const auto segment = [&](int64_t token) {
    return std::ranges::upper_bound(mask.segment_starts, token) - mask.segment_starts.begin();
  };
  return segment(query) == segment(key) && (!mask.causal || key <= query) &&
         (mask.window == 0 || query - key < mask.window);
}

// [block][tokens] against the whole mask.
void expect_cells(const BitGrid& cells, const std::vector<std::vector<int64_t>>& blocks,
                  const ContextMask& mask) {
  for (int64_t i = 0; i < cells.side(); ++i) {
    for (int64_t j = 0; j < cells.side(); ++j) {
      const auto &queries = blocks[static_cast<size_t>(i)], &keys = blocks[static_cast<size_t>(j)];
      const bool open = std::ranges::any_of(queries, [&](int64_t q) {
        return std::ranges::any_of(keys, [&](int64_t k) { return visible(mask, q, k); });
      });
      ASSERT_EQ(cells.at(i, j), open) << i << ", " << j;
    }
  }
}

TEST(CoarseMask, closes_a_cell_where_all_of_it_is_masked) {
  for (uint64_t number = 0; number < 60; ++number) {
    const ContextMask mask = drawn(number, 70);
    for (const int64_t side : {1, 7, 32, 70}) {
      const auto starts = data::even_starts(70, side);
      std::vector<std::vector<int64_t>> blocks(static_cast<size_t>(side));
      for (size_t block = 0; block < blocks.size(); ++block) {
        for (int64_t token = starts[block]; token < starts[block + 1]; ++token)
          blocks[block].push_back(token);
      }
      SCOPED_TRACE(number);
      expect_cells(data::coarse_mask(mask, side), blocks, mask);
    }
  }
}

TEST(TokenOrder, cells_of_places_are_those_of_their_tokens) {
  for (uint64_t number = 0; number < 60; ++number) {
    const ContextMask mask = drawn(number, 90);
    const int64_t places = 2 + static_cast<int64_t>(number % 7);
    const data::ContextDeal deal(mask.segment_starts,
                                 {.size = places,
                                  .algorithm = data::ContextAlgorithm::kAdaptive,
                                  .causal = mask.causal,
                                  .mask_window = mask.window});
    std::vector<std::vector<int64_t>> tokens;
    for (int64_t place = 0; place < places; ++place) tokens.push_back(deal.tokens_of_place(place));
    SCOPED_TRACE(number);
    const BitGrid cells = data::open_cells(deal.places(), mask.causal, mask.window);
    expect_cells(cells, tokens, mask);
    const auto in_order = data::parts_in_order({{0, 90}}, mask.segment_starts, places);
    EXPECT_LE(cells.count(), data::open_cells(in_order, mask.causal, mask.window).count());
  }
}

TEST(TokenOrder, of_one_document_is_that_of_its_tokens) {
  for (const int64_t window : {0, 50}) {
    const auto parts = data::adaptive_parts({{0, 1000}, true, window}, 4);
    for (int64_t place = 0; place < 4; ++place) {
      ASSERT_EQ(parts[static_cast<size_t>(place)].size(), 1U);
      EXPECT_EQ(parts[static_cast<size_t>(place)].front().positions.front(), 250 * place);
    }
  }
}

int64_t cells_of(const std::vector<PlaceParts>& parts, const ContextMask& mask) {
  return data::open_cells(parts, mask.causal, mask.window).count();
}
int64_t cells_in_order(const std::vector<data::TokenRun>& order, const ContextMask& mask,
                       int64_t places) {
  return cells_of(data::parts_in_order(order, mask.segment_starts, places), mask);
}

// Two documents of half a place's tokens around two that fill one.
TEST(TokenOrder, brings_documents_together_that_fill_a_place) {
  const ContextMask mask{{0, 64, 192, 320, 384}};
  EXPECT_EQ(cells_in_order({{0, 384}}, mask, 3), 5);
  EXPECT_EQ(cells_of(data::adaptive_parts(mask, 3), mask), 3);
}

TEST(TokenOrder, of_clusters_where_it_serves_best) {
  for (const auto& [mask, places, cells] :
       {std::tuple{ContextMask{{0, 47, 62, 107, 120}}, 6, 12},
        {ContextMask{{0, 6, 17, 30, 41, 46, 60}}, 5, 8},
        {ContextMask{{0, 21, 33, 35, 46, 57, 69, 80, 99, 104}, false}, 8, 20}}) {
    EXPECT_EQ(cells_of(data::adaptive_parts(mask, places), mask), cells);
    EXPECT_LT(cells, cells_in_order({{0, mask.tokens()}}, mask, places));
    EXPECT_LT(cells,
              cells_in_order(data::whole_segments(mask.segment_starts, places), mask, places));
  }
}

TEST(TokenOrder, whole_segments_are_complete) {
  for (uint64_t number = 0; number < 200; ++number) {
    const ContextMask mask = drawn(number, 97);
    auto order = data::whole_segments(mask.segment_starts, 1 + static_cast<int64_t>(number % 9));
    std::ranges::sort(order, {}, &data::TokenRun::begin);
    int64_t next = 0;
    for (const auto& run : order) {
      ASSERT_EQ(run.begin, next);
      next = run.end;
    }
    ASSERT_EQ(next, 97);
  }
}

TEST(TokenOrder, is_the_same_every_time) {
  const ContextMask mask = drawn(3, 500);
  const auto tokens_of = [&] {
    const auto deal = data::ContextDeal(
        mask.segment_starts, {.size = 5, .algorithm = data::ContextAlgorithm::kAdaptive});
    std::vector<int64_t> all;
    for (int64_t place = 0; place < 5; ++place) {
      for (const int64_t token : deal.tokens_of_place(place)) all.push_back(token);
    }
    return all;
  };
  EXPECT_EQ(tokens_of(), tokens_of());
}

TEST(TokenOrder, clusters_bring_equal_rows_together) {
  // Every third block sees the same keys.
  BitGrid mask(24);
  for (int64_t i = 0; i < 24; ++i) {
    for (int64_t j = i % 3; j < 24; j += 3) mask.set(i, j);
  }
  const auto labels = data::MaskClusters(mask).labels(3);
  for (size_t i = 0; i < 24; ++i) {
    EXPECT_EQ(labels[i], labels[i % 3]);
  }
}

TEST(TokenOrder, counts_cells_before_their_spread) {
  BitGrid one(3), two(3), three(3);
  for (const auto& [i, j] : {std::pair{0, 0}, {1, 1}, {2, 2}}) one.set(i, j);
  two = one;
  two.set(1, 0);
  three = two;
  three.set(2, 0);
  BitGrid even = two;
  even.set(2, 1);
  even.set(0, 2);
  BitGrid uneven = three;
  uneven.set(0, 1);
  EXPECT_LT(data::order_score(one), data::order_score(two));
  EXPECT_LT(data::order_score(two), data::order_score(three));
  EXPECT_LT(data::order_score(even), data::order_score(uneven));
}

}  // namespace
}  // namespace qianli::testing
