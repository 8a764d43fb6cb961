#include "qianli/data/context_deal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "qianli/base/error.h"

namespace qianli::data {
namespace {

using Tokens = std::vector<int64_t>;

ContextOptions options(ContextAlgorithm algorithm, int64_t size, int64_t inner = 1) {
  return {.size = size, .algorithm = algorithm, .inner = inner};
}

TEST(ContextDeal, zig_zag_gives_the_first_and_the_last_chunk_to_the_first_rank) {
  const ContextDeal deal({0, 8}, options(ContextAlgorithm::kRing, 2));
  EXPECT_EQ(deal.tokens_of(0), (Tokens{0, 1, 6, 7}));
  EXPECT_EQ(deal.tokens_of(1), (Tokens{2, 3, 4, 5}));
}

TEST(ContextDeal, without_a_causal_mask_chunks_are_neighbours) {
  ContextOptions general = options(ContextAlgorithm::kRing, 2);
  general.causal = false;
  const ContextDeal deal({0, 8}, general);
  EXPECT_EQ(deal.tokens_of(0), (Tokens{0, 1, 2, 3}));
  EXPECT_EQ(deal.tokens_of(1), (Tokens{4, 5, 6, 7}));
}

TEST(ContextDeal, ulysses_cuts_the_microbatch_in_neighbours_of_equal_length) {
  const ContextDeal deal({0, 37}, options(ContextAlgorithm::kUlysses, 4));
  for (int64_t rank = 0, next = 0; rank < 4; ++rank) {
    Tokens expected(rank == 0 ? 10 : 9);
    std::iota(expected.begin(), expected.end(), next);
    next += static_cast<int64_t>(expected.size());
    EXPECT_EQ(deal.tokens_of(rank), expected);
  }
}

TEST(ContextDeal, hybrid_cuts_the_zig_zag_of_a_place_between_its_ranks) {
  const ContextDeal deal({0, 16}, options(ContextAlgorithm::kHybrid, 4, 2));
  EXPECT_EQ(deal.tokens_of(0), (Tokens{0, 1, 2, 3}));
  EXPECT_EQ(deal.tokens_of(1), (Tokens{12, 13, 14, 15}));
  EXPECT_EQ(deal.tokens_of(2), (Tokens{4, 5, 6, 7}));
  EXPECT_EQ(deal.tokens_of(3), (Tokens{8, 9, 10, 11}));
}

TEST(ContextDeal, every_segment_is_dealt_out_by_itself) {
  const ContextDeal deal({0, 4, 12}, options(ContextAlgorithm::kKvAllGather, 2));
  EXPECT_EQ(deal.tokens_of(0), (Tokens{0, 4, 5, 3, 10, 11}));
  EXPECT_EQ(deal.tokens_of(1), (Tokens{1, 6, 7, 2, 8, 9}));
  EXPECT_EQ(deal.run_starts(0), (Tokens{0, 1, 3, 4, 6}));
}

// Of the ranks' shares: every token once, equal sizes, and runs of one segment.
void check(const ContextDeal& deal) {
  Tokens all;
  int64_t least = deal.tokens(), most = 0;
  for (int64_t rank = 0; rank < deal.options().size; ++rank) {
    const Tokens own = deal.tokens_of(rank);
    all.insert(all.end(), own.begin(), own.end());
    least = std::min(least, static_cast<int64_t>(own.size()));
    most = std::max(most, static_cast<int64_t>(own.size()));
    const auto runs = deal.run_starts(rank);
    ASSERT_EQ(runs.front(), 0);
    ASSERT_EQ(runs.back(), static_cast<int64_t>(own.size()));
    for (size_t run = 0; run + 1 < runs.size(); ++run) {
      const size_t segment = run % static_cast<size_t>(deal.segments());
      for (auto i = static_cast<size_t>(runs[run]); i < static_cast<size_t>(runs[run + 1]); ++i) {
        ASSERT_GE(own[i], deal.segment_starts()[segment]);
        ASSERT_LT(own[i], deal.segment_starts()[segment + 1]);
        if (i > static_cast<size_t>(runs[run])) {
          ASSERT_EQ(own[i], own[i - 1] + 1);
        }
      }
    }
  }
  EXPECT_LE(most - least, 2);
  if (deal.tokens() >= deal.options().size) {
    EXPECT_GE(least, 1);
  }
  std::sort(all.begin(), all.end());
  Tokens expected(static_cast<size_t>(deal.tokens()));
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(all, expected);
}

TEST(ContextDeal, shares_are_complete_and_even_for_any_lengths) {
  for (const Tokens& starts : {Tokens{0, 16}, Tokens{0, 37}, Tokens{0, 1, 2, 3, 4, 5, 6, 7, 8},
                               Tokens{0, 5, 5, 19, 20, 47}, Tokens{0, 3}}) {
    for (const int64_t size : {2, 3, 4, 8}) {
      if (size > starts.back()) continue;
      for (const bool causal : {true, false}) {
        for (const auto algorithm :
             {ContextAlgorithm::kRing, ContextAlgorithm::kUlysses, ContextAlgorithm::kKvAllGather,
              ContextAlgorithm::kHybrid, ContextAlgorithm::kAdaptive}) {
          const bool divides = size >= 4 && size % 2 == 0;
          if (algorithm == ContextAlgorithm::kHybrid && !divides) continue;
          ContextOptions own = options(algorithm, size, divides ? 2 : 1);
          own.causal = causal;
          check(ContextDeal(starts, own));
        }
      }
    }
  }
}

TEST(ContextDeal, zig_zag_balances_the_work_of_a_causal_mask) {
  const ContextDeal deal({0, 1024}, options(ContextAlgorithm::kRing, 8));
  std::set<int64_t> work;
  for (int64_t rank = 0; rank < 8; ++rank) {
    const Tokens own = deal.tokens_of(rank);
    work.insert(std::accumulate(own.begin(), own.end(), int64_t{0}));
  }
  EXPECT_EQ(work.size(), 1U);
}

TEST(ContextOptions, every_few_layers_keep_keys) {
  ContextOptions own = options(ContextAlgorithm::kRing, 2);
  own.kept = data::KeptKeys::kAll;
  const auto keeping = [&] {
    std::vector<int64_t> layers;
    for (int64_t layer = 0; layer < 7; ++layer) {
      if (own.kept_of(layer) == data::KeptKeys::kAll) layers.push_back(layer);
    }
    return layers;
  };
  EXPECT_EQ(keeping().size(), 7U);
  own.kept_interval = 2;
  EXPECT_EQ(keeping(), (Tokens{0, 3, 6}));
}

TEST(DealOut, takes_labels_and_tokens_ahead_from_the_whole_sequences) {
  Batch batch{.sequences = 2, .sequence_length = 6, .segment_ends = {4, 6, 12}};
  for (int64_t i = 0; i < 12; ++i) {
    batch.tokens.push_back(100 + i);
    batch.labels.push_back(101 + i);
    batch.loss_mask.push_back(i % 3 == 0 ? 0.0F : 1.0F);
    batch.positions.push_back(i % 6);
  }
  const Batch part = deal_out(batch, options(ContextAlgorithm::kRing, 2), 0, 2);
  // Chunks 0 and 3 of each segment; the second has one token for each rank.
  EXPECT_EQ(part.tokens, (Tokens{100, 104, 106, 107, 103, 111}));
  EXPECT_EQ(part.labels, (Tokens{101, 105, 107, 108, 104, 112}));
  EXPECT_EQ(part.positions, (Tokens{0, 4, 0, 1, 3, 5}));
  EXPECT_EQ(part.segment_ends, (Tokens{1, 2, 4, 5, 5, 6}));
  EXPECT_EQ(part.max_position, 5);
  ASSERT_EQ(part.ahead.size(), 2U);
  EXPECT_EQ(part.ahead[0].tokens, (Tokens{101, 105, 107, 108, 0, 0}));
  EXPECT_EQ(part.ahead[1].labels, (Tokens{103, 0, 109, 110, 0, 0}));
  EXPECT_EQ(part.ahead[0].loss_mask, (std::vector<float>{1, 1, 1, 1, 0, 0}));
}

TEST(ContextProblems, name_the_nearest_valid_values) {
  EXPECT_TRUE(context_problems(options(ContextAlgorithm::kRing, 4), 1, 4).empty());
  const auto problem = [](const ContextOptions& given, int64_t heads, int64_t tokens) {
    const auto problems = context_problems(given, heads, tokens);
    return problems.empty() ? std::string() : problems.front();
  };
  EXPECT_NE(problem(options(ContextAlgorithm::kHybrid, 12, 5), 12, 99).find("4 or 6"),
            std::string::npos);
  EXPECT_NE(problem(options(ContextAlgorithm::kAdaptive, 12, 5), 12, 99).find("4 or 6"),
            std::string::npos);
  EXPECT_TRUE(context_problems(options(ContextAlgorithm::kAdaptive, 4), 1, 4).empty());
  EXPECT_NE(problem(options(ContextAlgorithm::kUlysses, 8), 6, 99).find("heads, 6, got 8"),
            std::string::npos);
  EXPECT_NE(problem(options(ContextAlgorithm::kRing, 8), 6, 7).find("8 ranks, got 7"),
            std::string::npos);
  ContextOptions window = options(ContextAlgorithm::kRing, 8);
  window.window = 3;
  EXPECT_NE(problem(window, 8, 99).find("2 or 4"), std::string::npos);
  EXPECT_THROW(context_algorithm("rings"), ConfigError);
}

}  // namespace
}  // namespace qianli::data
