#include "qianli/text/chat/truncation.h"

#include <gtest/gtest.h>

#include <numeric>

namespace qianli::text::chat {
namespace {

using Lengths = std::pair<int64_t, int64_t>;

Lengths cut(Lengths turn, Truncation rule, int64_t budget = 10) {
  const TurnLengths stays = truncated({turn.first, turn.second}, budget, rule);
  return {stays.source, stays.target};
}

TEST(Truncation, two_sided) {
  EXPECT_EQ(cut({8, 4}, Truncation::kTwoSided), Lengths(6, 4));
  EXPECT_EQ(cut({4, 20}, Truncation::kTwoSided), Lengths(4, 6));
  EXPECT_EQ(cut({12, 12}, Truncation::kTwoSided), Lengths(5, 5));
  EXPECT_EQ(cut({3, 3}, Truncation::kTwoSided), Lengths(3, 3));
}

TEST(Truncation, proportional) {
  EXPECT_EQ(cut({8, 4}, Truncation::kProportional), Lengths(7, 3));
  EXPECT_EQ(cut({12, 12}, Truncation::kProportional), Lengths(5, 5));
  EXPECT_EQ(cut({3, 3}, Truncation::kProportional), Lengths(3, 3));
  EXPECT_EQ(cut({100, 1}, Truncation::kProportional), Lengths(9, 1));
  EXPECT_EQ(cut({0, 0}, Truncation::kProportional), Lengths(0, 0));
}

TEST(Truncation, shares_are_those_of_floating_point) {
  // 100 * (29 / 100) is 28.999999999999996 there.
  EXPECT_EQ(cut({71, 29}, Truncation::kProportional, 100), Lengths(72 - 1, 28));
}

TEST(Truncation, nothing_exceeds_the_budget) {
  for (int64_t budget = 1; budget < 12; ++budget) {
    for (int64_t source = 0; source < 15; ++source) {
      for (int64_t target = 0; target < 15; ++target) {
        for (const auto rule : {Truncation::kProportional, Truncation::kTwoSided}) {
          const auto [s, t] = cut({source, target}, rule, budget);
          EXPECT_TRUE(s >= 0 && t >= 0 && s <= source && t <= target && s + t <= budget);
          const bool whole = rule == Truncation::kTwoSided && source + target <= budget;
          EXPECT_TRUE(!whole || Lengths(s, t) == Lengths(source, target));
        }
      }
    }
  }
}

std::vector<EncodedTurn> turns(std::initializer_list<Lengths> lengths) {
  std::vector<EncodedTurn> made;
  int32_t id = 0;
  for (const auto& [source, target] : lengths) {
    EncodedTurn& turn = made.emplace_back();
    turn.source.resize(static_cast<size_t>(source));
    turn.target.resize(static_cast<size_t>(target));
    std::iota(turn.source.begin(), turn.source.end(), id);
    std::iota(turn.target.begin(), turn.target.end(), id + 50);
    id += 100;
  }
  return made;
}

std::vector<Lengths> lengths(const std::vector<EncodedTurn>& turns) {
  std::vector<Lengths> all;
  for (const EncodedTurn& turn : turns) all.emplace_back(turn.source.size(), turn.target.size());
  return all;
}

TEST(Truncation, turns_share_a_budget) {
  auto some = turns({{3, 3}, {4, 4}, {2, 2}});
  EXPECT_TRUE(truncate_turns(some, 10, Truncation::kTwoSided, false));
  EXPECT_EQ(lengths(some), (std::vector<Lengths>{{3, 3}, {2, 2}}));
  EXPECT_EQ(some[1].source, (std::vector<int32_t>{100, 101}));
  some = turns({{3, 3}, {4, 4}, {2, 2}});
  EXPECT_TRUE(truncate_turns(some, 10, Truncation::kTwoSided, true));
  EXPECT_EQ(lengths(some), (std::vector<Lengths>{{3, 3}, {2, 2}}));
  EXPECT_EQ(some[0].source, (std::vector<int32_t>{100, 101, 102}));
  some = turns({{3, 3}, {2, 2}});
  EXPECT_FALSE(truncate_turns(some, 10, Truncation::kTwoSided, false));
}

TEST(Labels, questions_and_history) {
  const std::vector<EncodedTurn> some = {{{1, 2}, {3}}, {{4}, {5, 6}}, {{7}, {}, false}};
  using Ids = std::vector<int32_t>;
  constexpr int32_t x = kIgnored;
  EXPECT_EQ(training_sample(some, std::nullopt, {}).ids, (Ids{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(training_sample(some, std::nullopt, {}).labels, (Ids{x, x, 3, x, 5, 6}));
  EXPECT_EQ(training_sample(some, 9, {}).ids, (Ids{1, 2, 3, 4, 5, 6, 9}));
  EXPECT_EQ(training_sample(some, 9, {}).labels, (Ids{x, x, 3, 9, 5, 6, 9}));
  EXPECT_EQ(training_sample(some, 9, {.train_on_prompt = true}).labels, (Ids{1, 2, 3, 4, 5, 6, 9}));
  EXPECT_EQ(training_sample(some, 9, {.mask_history = true}).labels, (Ids{x, x, x, x, 5, 6, 9}));
}

}  // namespace
}  // namespace qianli::text::chat
