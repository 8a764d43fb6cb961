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

// Every rank gets the tokens, choices and weights of all, and a share of each one's sums of
// experts; gradients go the other ways.
TEST(ExpertParallel, AllGatherSendsWhatTheFormulaSays) {
  const model::ModelSpec spec = tiny_model("qwen3_moe");
  constexpr double kTokens = 16, kBytes = 8;
  for (const int64_t ranks : {2, 4}) {
    const Layout layout{
        .data = ranks, .expert = ranks, .expert_dispatcher = "all_gather", .samples = 2 * ranks};
    SCOPED_TRACE(text_of(layout));
    const auto h = static_cast<double>(spec.hidden_size), top_k = double(spec.moe->top_k);
    const double how_many = 8, choices = kTokens * top_k * 8;
    const double layer = how_many + choices + (2 * 2 * kTokens * h + 2 * kTokens * top_k) * kBytes;
    const double expected = kEqualitySteps * 2 * static_cast<double>(spec.num_layers) *
                            static_cast<double>(ranks - 1) * layer;
    dist::run_ranks(ranks, [&](const dist::World& world) {
      EXPECT_DOUBLE_EQ(run_layout(spec, layout, world).expert_bytes, expected);
    });
  }
}

}  // namespace
}  // namespace qianli::testing
