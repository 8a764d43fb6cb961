#include <gtest/gtest.h>

#include "qianli/dist/rank_threads.h"
#include "tests/train/layout_equality.h"

namespace qianli::testing {
namespace {

class TensorParallelRun : public ::testing::TestWithParam<std::string> {};

TEST_P(TensorParallelRun, equals_the_serial_run) {
  const model::ModelSpec spec = tiny_model(GetParam());
  const RunResult serial = run_serially(spec);
  for (const Layout& layout :
       {Layout{.tensor = 2}, Layout{.tensor = 2, .sequence = true}, Layout{.tensor = 4},
        Layout{.tensor = 4, .sequence = true}, Layout{.data = 2, .zero = 1, .tensor = 2},
        Layout{.data = 2, .zero = 1, .tensor = 2, .sequence = true}}) {
    SCOPED_TRACE(text_of(layout));
    dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
      expect_equal(run_layout(spec, layout, world), serial);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TensorParallelRun, ::testing::ValuesIn(tiny_model_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace qianli::testing
