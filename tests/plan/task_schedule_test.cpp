// Properties of task schedules over drawn masks.
#include "qianli/plan/task_schedule.h"

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/base/random.h"

namespace qianli::testing {
namespace {

using plan::AttentionTask;
using plan::LinkCosts;
using plan::PlaceRound;
using plan::TaskSchedule;
using Cargo = PlaceRound::Cargo;

BitGrid drawn(uint64_t number, int64_t side, double share) {
  BitGrid cells(side);
  const uint64_t key = random_key(number, "cells");
  for (int64_t i = 0; i < side; ++i) {
    for (int64_t j = 0; j < side; ++j) {
      if (uniform_at(key, static_cast<uint64_t>(i * side + j)) < share) cells.set(i, j);
    }
  }
  return cells;
}

BitGrid causal(int64_t side) {
  BitGrid cells(side);
  for (int64_t i = 0; i < side; ++i) {
    for (int64_t j = 0; j <= i; ++j) cells.set(i, j);
  }
  return cells;
}

TEST(TaskSchedule, is_right_for_every_mask_and_any_costs) {
  for (uint64_t number = 0; number < 3000; ++number) {
    const uint64_t key = random_key(number, "schedule");
    const auto draw = [&](uint64_t i, double below) { return uniform_at(key, i) * below; };
    const auto side = 1 + static_cast<int64_t>(draw(0, 17));
    const BitGrid cells = drawn(number, side, draw(1, 1.2));
    const LinkCosts costs{1 + static_cast<int64_t>(draw(2, 6)),
                          1 + static_cast<int64_t>(draw(3, 9)),
                          1 + static_cast<int64_t>(draw(4, 9))};
    for (const LinkCosts& own : {LinkCosts{}, costs}) {
      const TaskSchedule schedule = plan::task_schedule(cells, own);
      const auto problems = plan::schedule_problems(schedule, cells, own);
      ASSERT_TRUE(problems.empty())
          << number << ": " << fmt::format("{}", fmt::join(problems, "\n"));
      ASSERT_LE(static_cast<int64_t>(schedule.rounds.size()), side);
      ASSERT_EQ(schedule.rounds, plan::task_schedule(cells, own).rounds);
    }
  }
}

TEST(TaskSchedule, shares_out_a_causal_mask) {
  // The least are (places + 1) / 2.
  for (const auto& [places, rounds] : {std::pair{2, 2U}, {4, 3U}, {8, 6U}, {16, 11U}, {32, 22U}})
    EXPECT_EQ(plan::task_schedule(causal(places)).rounds.size(), rounds) << places;
  // Queries that are dear do not travel: the last place computes all of its row.
  const auto dear = plan::task_schedule(causal(4), {.keys = 1, .queries = 4, .result = 4}).rounds;
  EXPECT_EQ(dear.size(), 4U);
  for (const auto& round : dear) EXPECT_EQ(round.back()->query, 3);
}

TEST(TaskSchedule, sends_nothing_for_closed_cells) {
  BitGrid cells(4);
  for (int64_t i = 0; i < 4; ++i) cells.set(i, i);
  cells.set(2, 1);
  const TaskSchedule schedule = plan::task_schedule(cells);
  std::vector<PlaceRound::Message> messages;
  for (int64_t place = 0; place < 4; ++place) {
    for (const auto& round : plan::rounds_of(schedule, place))
      messages.insert(messages.end(), round.goes.begin(), round.goes.end());
  }
  ASSERT_EQ(messages.size(), 1U);
  EXPECT_EQ(messages.front(), (PlaceRound::Message{Cargo::kKeys, 2}));
  EXPECT_EQ(schedule.rounds.size(), 2U);
}

TEST(TaskSchedule, the_proof_finds_what_is_wrong) {
  const BitGrid cells = causal(4);
  const TaskSchedule right = plan::task_schedule(cells);
  const auto found = [&](const TaskSchedule& schedule, const std::string& words,
                         const LinkCosts& costs = {}) {
    const auto problems = plan::schedule_problems(schedule, cells, costs);
    return std::ranges::any_of(
        problems, [&](const auto& problem) { return problem.find(words) != std::string::npos; });
  };
  TaskSchedule missing = right;
  missing.rounds[1][3].reset();
  EXPECT_TRUE(found(missing, "is computed 0 times"));
  TaskSchedule twice = right;
  twice.rounds.push_back(right.rounds[0]);
  EXPECT_TRUE(found(twice, "the cell (0, 0) is computed 2 times"));
  TaskSchedule foreign = right;
  foreign.rounds[0][0] = AttentionTask{2, 1};
  EXPECT_TRUE(found(foreign, "place 0 computes the task (2, 1) of others"));
  TaskSchedule lent{4, {{{}, AttentionTask{0, 1}, AttentionTask{0, 2}, {}}}};
  EXPECT_TRUE(found(lent, "queries of place 0 go to 2 places"));
  TaskSchedule full{4, {{{}, AttentionTask{1, 0}, AttentionTask{2, 0}, AttentionTask{3, 0}}}};
  EXPECT_FALSE(found(full, "units at place"));
  full.rounds[0][0] = AttentionTask{0, 1};
  EXPECT_TRUE(found(full, "8 units at place 0, at most 6 fit"));
}

}  // namespace
}  // namespace qianli::testing
