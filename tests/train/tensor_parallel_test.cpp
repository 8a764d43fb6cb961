#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <mutex>
#include <numeric>

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

// What ranks sum for each token with a label: the largest logit, the sum of exponentials and the
// logit at the label; for those predicted rightly the largest logit and that at the label.
constexpr double kOfLabel = 5;
double labels_of(const RunResult& run) {
  return std::accumulate(run.labels.begin(), run.labels.end(), 0.0);
}

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
      const double softmax = 2 * kOfLabel * kBytes * share;
      const double again = sequence ? 2 * layers * all_reduce / 2 : 0;
      const double microbatch = (4 * layers + 2) * all_reduce + again;
      // Norms: two of a layer and the last one, whose gradients are of a rank's own tokens.
      const double norms = sequence ? 2 * (2 * layers + 1) * h * kBytes * share : 0;
      const double expected = kEqualitySteps * (2 * microbatch + norms);
      dist::run_ranks(ranks, [&](const dist::World& world) {
        const RunResult run = run_layout(spec, layout, world);
        EXPECT_DOUBLE_EQ(run.tensor_bytes, expected + softmax * labels_of(run));
      });
    }
  }
}

// The inputs of q, k, v and of gate and up are not gathered again for adapters: x A^T and its
// gradient are, which are narrow. What is left of these two gathers behind the sums of A's and B's
// gradients is one of them at least.
TEST(TensorParallel, AdaptersSendNarrowGradients) {
  const model::ModelSpec spec = tiny_model("llama");
  constexpr double kTokens = 16, kBytes = 8, kShare = 0.5;
  const Layout all{.tensor = 2, .sequence = true, .samples = 2};
  Layout adapters = all;
  adapters.tune = {.method = "lora", .r = 1};
  const double gather = kTokens * static_cast<double>(spec.hidden_size) * kBytes * kShare;
  const double gathers = kEqualitySteps * 2 * static_cast<double>(spec.num_layers);
  const auto sent = [&](const Layout& layout) {
    double bytes = 0;
    dist::run_ranks(2, [&](const dist::World& world) {
      const double own = run_layout(spec, layout, world).tensor_bytes;
      if (world.rank() == 0) bytes = own;
    });
    return bytes;
  };
  EXPECT_LT(sent(adapters), sent(all) - gathers * gather);
}

// Two-dimensional: of x by y ranks.
class GridRun : public ::testing::TestWithParam<std::string> {};

TEST_P(GridRun, equals_the_serial_run) {
  using data::ContextAlgorithm;
  model::ModelSpec spec = tiny_model(GetParam());
  for (Layout layout :
       {Layout{.tensor = 4, .tensor_x = 2, .tensor_y = 2, .several_lengths = true},
        Layout{
            .tensor = 4, .tensor_slices = 2, .tensor_x = 2, .tensor_y = 2, .several_lengths = true},
        Layout{.context = {.algorithm = ContextAlgorithm::kUlysses},
        .tensor = 4,
        .tensor_x = 2,
        .tensor_y = 2,
        .packed = true},
        Layout{.context = {.size = 2}, .tensor = 4, .tensor_x = 2, .tensor_y = 2, .packed = true},
        Layout{.context = {.size = 2, .algorithm = ContextAlgorithm::kHybrid, .inner = 2},
        .tensor = 4,
        .tensor_x = 2,
        .tensor_y = 2},
        Layout{.data = 2, .zero = 1, .tensor = 4, .tensor_x = 2, .tensor_y = 2, .pipeline = 2},
        Layout{.tensor = 6, .tensor_x = 2, .tensor_y = 3},
        // More ranks than groups of queries, which neighbours hold then.
        Layout{.tensor = 8, .tensor_x = 4, .tensor_y = 2}}) {
    layout.samples = 4;
    SCOPED_TRACE(text_of(layout));
    const RunResult serial = run_serially(spec, layout);
    dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
      expect_equal(run_layout(spec, layout, world), serial);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GridRun, ::testing::Values("llama", "gpt2", "switches"),
                         [](const auto& info) { return info.param; });

// m tokens, h columns; a first linear layer to E columns sends m h / y (x - 1) / x three times and
// m E / x (y - 1) / y twice, the last one of a block the former twice and the latter three times.
TEST(Grid, SendsWhatTheFormulaSays) {
  const model::ModelSpec spec = tiny_model("llama");
  constexpr double kTokens = 16, kBytes = 8;
  for (const auto& [x, y, slices] : {std::tuple{2, 2, 1}, {2, 2, 2}, {2, 4, 1}, {4, 2, 1}}) {
    const Layout layout{
        .tensor = x * y, .tensor_slices = slices, .tensor_x = x, .tensor_y = y, .samples = 2};
    SCOPED_TRACE(text_of(layout));
    const auto of_x = [&](double n) { return n / y * (x - 1) / x; };
    const auto of_y = [&](double n) { return n / x * (y - 1) / y; };
    const auto h = static_cast<double>(spec.hidden_size);
    const double heads = static_cast<double>(spec.num_attention_heads * spec.head_dim);
    // Keys that several ranks of x hold are sent as often.
    const double keys =
        static_cast<double>(std::max<int64_t>(spec.num_query_groups, x) * spec.head_dim * 2);
    const double width = static_cast<double>(spec.ffn_hidden_size);
    const double linears = 2 * (3 * of_x(h) + 2 * of_x(h)) + 2 * of_y(heads + keys) +
                           3 * of_y(heads) + 2 * of_y(2 * width) + 3 * of_y(width);
    const double norm = 2 * 2 * of_y(1);  // a sum forward and one backward, both ways
    const double ends = 4 * (h * (x * y - 1) / (x * y));
    const double softmax = 2 * kOfLabel * kBytes * (x * y - 1.0) / (x * y);
    const double layers = static_cast<double>(spec.num_layers);
    const double microbatch = kTokens * kBytes * (layers * (linears + 2 * norm) + norm + ends);
    dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
      const RunResult run = run_layout(spec, layout, world);
      EXPECT_NEAR(run.tensor_bytes, kEqualitySteps * 2 * microbatch + softmax * labels_of(run),
                  1e-6);
    });
  }
}

// Every rank that holds an element has the same bits of it after some steps.
TEST(TensorParallel, replicated_parameters_stay_equal_bit_for_bit) {
  for (const char* model : {"llama", "gpt2", "deepseek_v3"}) {
    const model::ModelSpec spec = tiny_model(model);
    for (Layout layout :
         {Layout{.tensor = 4}, Layout{.tensor = 4, .sequence = true, .tensor_slices = 2},
          Layout{.data = 2, .zero = 1, .tensor = 2, .sequence = true},
          Layout{.tensor = 4, .tensor_x = 2, .tensor_y = 2}}) {
      if (!plan::part_problems(spec, part_of(layout)).empty()) continue;
      layout.samples = 2;
      SCOPED_TRACE(std::string(model) + ": " + text_of(layout));
      std::mutex mutex;
      std::map<std::string, at::Tensor> values, held;  // of whole parameters
      int64_t compared = 0;
      dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
        const RunResult run = run_layout(spec, layout, world);
        const std::lock_guard lock(mutex);
        for (const auto& [name, part] : run.parts) {
          const auto all = at::zeros(part.entry.shape, at::kDouble);
          const auto [value, is_new] = values.try_emplace(name, all.clone());
          at::Tensor& times = held.try_emplace(name, all.clone()).first->second;
          for (const plan::Run& piece : plan::runs(part)) {
            const auto of = [&](const at::Tensor& whole, int64_t first) {
              return whole.view(-1).narrow(0, first, piece.count);
            };
            const at::Tensor own = of(run.parameters.at(name), piece.first);
            const at::Tensor seen = of(times, piece.whole_first) > 0;
            const at::Tensor before = of(value->second, piece.whole_first);
            EXPECT_TRUE(at::equal(own.masked_select(seen), before.masked_select(seen))) << name;
            compared += seen.sum().item<int64_t>();
            before.copy_(own);
            of(times, piece.whole_first).fill_(1);
          }
        }
      });
      EXPECT_GT(compared, 0);
    }
  }
}

}  // namespace
}  // namespace qianli::testing
