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

TEST_P(TensorParallelRun, equals_the_serial_run_in_slices) {
  const model::ModelSpec spec = tiny_model(GetParam());
  const RunResult serial = run_serially(spec, {.samples = 4, .several_lengths = true});
  for (Layout layout : {Layout{.tensor = 2, .tensor_slices = 3},
                        Layout{.tensor = 2, .sequence = true, .tensor_slices = 4},
                        Layout{.tensor = 3, .sequence = true, .tensor_slices = 2},
                        Layout{.tensor = 2,
                        .sequence = true,
                        .tensor_slices = 2,
                        .pipeline = 2,
                        .schedule = "zb-h1"}}) {
    layout.several_lengths = true;
    layout.samples = 4;
    if (!plan::part_problems(spec, {.tensor = {0, layout.tensor}}).empty()) continue;
    SCOPED_TRACE(text_of(layout));
    dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
      expect_equal(run_layout(spec, layout, world), serial);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TensorParallelRun, ::testing::ValuesIn(tiny_model_names()),
                         [](const auto& info) { return info.param; });

// Forward and backward every layer sends four all-reduces of [T, h], or their halves; so does what
// stands around the layers, embedding and output layer, with two. With sequence parallelism the
// inputs of two blocks are gathered again in the backward pass. Slices change nothing.
TEST(TensorParallel, SendsWhatTheFormulaSays) {
  const model::ModelSpec spec = tiny_model("llama");
  constexpr double kTokens = 16, kBytes = 8;
  for (const int64_t ranks : {2, 4}) {
    for (const auto& [sequence, slices] : {std::pair{false, 1}, {true, 1}, {false, 2}, {true, 2}}) {
      const Layout layout{
          .tensor = ranks, .sequence = sequence, .tensor_slices = slices, .samples = 2};
      SCOPED_TRACE(text_of(layout));
      const auto h = static_cast<double>(spec.hidden_size), layers = double(spec.num_layers);
      const auto share = static_cast<double>(ranks - 1) / static_cast<double>(ranks);
      const double all_reduce = 2 * kTokens * h * kBytes * share;
      // The largest logits, and the sums of exponentials and of logits at labels.
      const double softmax = 2 * 3 * kTokens * kBytes * share;
      const double again = sequence ? 2 * layers * all_reduce / 2 : 0;
      const double microbatch = (4 * layers + 2) * all_reduce + again + softmax;
      // Norms: two of a layer and the last one, whose gradients are of a rank's own tokens.
      const double norms = sequence ? 2 * (2 * layers + 1) * h * kBytes * share : 0;
      const double expected = kEqualitySteps * (2 * microbatch + norms);
      dist::run_ranks(ranks, [&](const dist::World& world) {
        const double bytes = run_layout(spec, layout, world).tensor_bytes;
        EXPECT_DOUBLE_EQ(bytes, expected);
      });
    }
  }
}

}  // namespace
}  // namespace qianli::testing
