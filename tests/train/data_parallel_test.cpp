#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/base/trace.h"
#include "qianli/dist/rank_threads.h"
#include "tests/train/layout_equality.h"

namespace qianli::testing {
namespace {

class DataParallelRun : public ::testing::TestWithParam<std::string> {};

TEST_P(DataParallelRun, equals_the_serial_run) {
  const model::ModelSpec spec = tiny_model(GetParam());
  const RunResult serial = run_serially(spec);
  EXPECT_NE(serial.losses[0], serial.losses[2]);
  for (const Layout& layout :
       {Layout{.data = 2}, Layout{.data = 2, .zero = 1, .overlap = false},
        Layout{.data = 3, .zero = 1}, Layout{.data = 4, .zero = 1, .bucket_elements = 1 << 20}}) {
    SCOPED_TRACE(text_of(layout));
    dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
      expect_equal(run_layout(spec, layout, world), serial);
    });
  }
}

// Sums of gradients that began within a backward pass.
int64_t sums_under_backward(const std::vector<trace::Recorder::Event>& events) {
  int64_t count = 0;
  for (const auto& sum : events) {
    if (!sum.travels || !sum.name.starts_with("all_reduce data")) continue;
    count += std::ranges::count_if(events, [&](const trace::Recorder::Event& work) {
      return work.name.starts_with("B0.") && work.begin < sum.begin && sum.begin < work.end;
    });
  }
  return count;
}

TEST(DataParallel, BucketsTravelUnderTheBackwardPass) {
  const model::ModelSpec spec = tiny_model("llama");
  for (const bool overlap : {true, false}) {
    dist::run_ranks(2, [&](const dist::World& world) {
      const auto recorder = std::make_shared<trace::Recorder>();
      const trace::Use use(recorder);
      run_layout(spec, {.data = 2, .overlap = overlap}, world);
      const int64_t count = sums_under_backward(recorder->events());
      if (overlap) {
        EXPECT_GE(count, kEqualitySteps * 10);
      } else {
        EXPECT_EQ(count, 0);
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Models, DataParallelRun, ::testing::ValuesIn(tiny_model_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace qianli::testing
