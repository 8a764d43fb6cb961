#include "qianli/plan/slices.h"

#include <gtest/gtest.h>

#include <numeric>

#include "qianli/base/error.h"
#include "tests/plan/schedule_cases.h"

namespace qianli::plan {
namespace {

TEST(Slices, average_slices_are_equally_long) {
  EXPECT_EQ(slice_lengths({.sequence_length = 4096, .slices = 4}),
            (std::vector<int64_t>{1024, 1024, 1024, 1024}));
  EXPECT_EQ(slice_lengths({.sequence_length = 10, .slices = 3}), (std::vector<int64_t>{3, 4, 3}));
}

TEST(Slices, balanced_slices_take_equally_long) {
  const SliceOptions options{.sequence_length = 32768,
                             .slices = 4,
                             .balance = SliceBalance::kCompute,
                             .multiple = 8,
                             .token = 1,
                             .key = 1e-4};
  const auto lengths = slice_lengths(options);
  EXPECT_EQ(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}), 32768);
  for (size_t i = 1; i < lengths.size(); ++i) {
    EXPECT_LT(lengths[i], lengths[i - 1]);
    EXPECT_EQ(lengths[i] % 8, 0);
  }
  for (const double work : slice_work(options, lengths)) EXPECT_NEAR(work, 1, 2e-3);
  // Of attention alone, half of the work lies behind 1 / sqrt(2) of the sequence.
  EXPECT_EQ(slice_lengths({.sequence_length = 1000,
                           .slices = 2,
                           .balance = SliceBalance::kCompute,
                           .token = 0,
                           .key = 1}),
            (std::vector<int64_t>{707, 293}));
}

TEST(Slices, balanced_slices_make_the_schedule_shorter) {
  SliceOptions options{.sequence_length = 32768, .slices = 4, .token = 1, .key = 1e-4};
  const Schedule schedule =
      make_schedule({.kind = ScheduleKind::kSeq1F1B, .stages = 4, .microbatches = 8, .slices = 4});
  const auto makespan = [&] {
    Times times = Times{};
    times.slices = slice_work(options, slice_lengths(options));
    return simulate(schedule, times).makespan;
  };
  const double average = makespan();
  options.balance = SliceBalance::kCompute;
  EXPECT_LT(makespan(), average);
}

TEST(Slices, every_slice_has_a_token) {
  const SliceOptions options{
      .sequence_length = 5, .slices = 5, .balance = SliceBalance::kCompute, .token = 0, .key = 1};
  EXPECT_EQ(slice_lengths(options), (std::vector<int64_t>{1, 1, 1, 1, 1}));
  EXPECT_THROW(slice_lengths({.sequence_length = 4, .slices = 5}), ConfigError);
  EXPECT_THROW(slice_lengths({.sequence_length = 16, .slices = 3, .multiple = 8}), ConfigError);
  EXPECT_THROW(slice_lengths({.sequence_length = 4, .slices = 2, .token = -1}), ConfigError);
}

}  // namespace
}  // namespace qianli::plan
