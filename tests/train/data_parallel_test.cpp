#include <gtest/gtest.h>

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

INSTANTIATE_TEST_SUITE_P(Models, DataParallelRun, ::testing::ValuesIn(tiny_model_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace qianli::testing
