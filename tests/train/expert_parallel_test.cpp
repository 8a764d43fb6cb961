#include <gtest/gtest.h>

#include "qianli/dist/rank_threads.h"
#include "tests/train/layout_equality.h"

namespace qianli::testing {
namespace {

class ExpertParallelRun : public ::testing::TestWithParam<std::string> {};

TEST_P(ExpertParallelRun, equals_the_serial_run) {
  const model::ModelSpec spec = tiny_model(GetParam());
  const RunResult serial = run_serially(spec);
  for (const Layout& layout : {
           Layout{.data = 2, .expert = 2},
           Layout{.data = 4, .zero = 1, .expert = 2},
           Layout{.data = 4, .zero = 1, .expert = 4},
           Layout{.data = 4, .zero = 1, .expert = 2, .expert_dispatcher = "all_gather"},
           Layout{.data = 1,
           .tensor = 2,
           .expert = 2,
           .expert_tensor = 1,
           .expert_dispatcher = "all_gather"},
           Layout{.data = 3, .expert = 3},  // 8 experts: 3, 3 and 2
           Layout{.data = 2, .tensor = 2, .sequence = true, .expert = 2},
           Layout{.data = 2, .zero = 1, .tensor = 2, .expert = 2, .expert_tensor = 1},
           Layout{.data = 1, .tensor = 4, .sequence = true, .expert = 2, .expert_tensor = 2},
           Layout{.data = 1, .tensor = 2, .expert = 1, .expert_tensor = 1},
       }) {
    SCOPED_TRACE(text_of(layout));
    dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
      expect_equal(run_layout(spec, layout, world), serial);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ExpertParallelRun, ::testing::Values("qwen3_moe", "deepseek_v3"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace qianli::testing
