#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/base/trace.h"
#include "qianli/dist/rank_threads.h"
#include "tests/train/layout_equality.h"

namespace qianli::testing {
namespace {

const Layout kLayouts[] = {
    {.data = 2},
    {.data = 2, .zero = 1, .overlap_gather = false, .overlap = false},
    {.data = 3, .zero = 1, .gather_ahead = 2},
    {.data = 4, .zero = 1, .bucket_elements = 1 << 20},
    {.data = 4, .zero = 1, .zero_ranks = 2},
    {.data = 2, .zero = 2, .overlap = false},
    {.data = 3, .zero = 2, .samples = 9},
    {.data = 4, .zero = 2, .zero_ranks = 2, .samples = 4},
    {.data = 2, .zero = 3, .samples = 2},
    {.data = 3, .zero = 3, .gather_ahead = 3, .samples = 9},
    {.data = 4, .zero = 3, .overlap_gather = false, .overlap = false},
    {.data = 4, .zero = 3, .zero_ranks = 2},
    {.data = 4, .zero = 3, .zero_parameter_ranks = 2},
};

class DataParallelRun : public ::testing::TestWithParam<std::string> {};

TEST_P(DataParallelRun, equals_the_serial_run) {
  const model::ModelSpec spec = tiny_model(GetParam());
  std::map<int64_t, RunResult> serial;  // by samples
  for (const Layout& layout : kLayouts) {
    if (!serial.contains(layout.samples)) serial[layout.samples] = run_serially(spec, layout);
  }
  EXPECT_NE(serial.at(12).losses[0], serial.at(12).losses[2]);
  for (const Layout& layout : kLayouts) {
    SCOPED_TRACE(text_of(layout));
    dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
      expect_equal(run_layout(spec, layout, world), serial.at(layout.samples));
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

// Gathers that began within a forward pass, and all gathers, of the group of that name.
struct Gathers {
  int64_t under_forward = 0, all = 0;
};
Gathers gathers_of(const std::vector<trace::Recorder::Event>& events, const std::string& group) {
  Gathers found;
  for (const auto& gather : events) {
    if (!gather.travels || !gather.name.starts_with("all_gather " + group + " (")) continue;
    ++found.all;
    found.under_forward += std::ranges::any_of(events, [&](const trace::Recorder::Event& work) {
      return work.name.starts_with("F0.") && work.begin < gather.begin && gather.begin < work.end;
    });
  }
  return found;
}

void expect_same_bits(const RunResult& a, const RunResult& b) {
  EXPECT_EQ(a.losses, b.losses);
  EXPECT_EQ(a.norms, b.norms);
  for (const auto& [name, value] : a.parameters)
    EXPECT_TRUE(at::equal(value, b.parameters.at(name))) << name;
}

model::ModelSpec untied_llama() {
  model::ModelSpec spec = tiny_model("llama");
  spec.tie_word_embeddings = false;
  return spec;
}

// What each rank leaves.
std::vector<RunResult> run_ranks_of(const model::ModelSpec& spec, const Layout& layout) {
  std::vector<RunResult> results(static_cast<size_t>(layout.ranks()));
  dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
    results[static_cast<size_t>(world.rank())] = run_layout(spec, layout, world);
  });
  return results;
}

TEST(ParameterGathering, OverlapChangesNoBit) {
  const model::ModelSpec spec = tiny_model("llama");
  for (const int64_t zero : {1, 3}) {
    const auto at_once = run_ranks_of(spec, {.data = 2, .zero = zero, .overlap_gather = false});
    dist::run_ranks(2, [&](const dist::World& world) {
      const auto recorder = std::make_shared<trace::Recorder>();
      const trace::Use use(recorder);
      const RunResult overlapped = run_layout(spec, {.data = 2, .zero = zero}, world);
      expect_same_bits(at_once[static_cast<size_t>(world.rank())], overlapped);
      EXPECT_GE(gathers_of(recorder->events(), "data").under_forward, kEqualitySteps);
    });
  }
}

// What a rank sends in a step of one microbatch: gradients once, and parameters once or, where it
// keeps slices of them, for each pass; the output layer makes its gradients in the forward pass.
TEST(DataParallel, SendsWhatTheFormulaSays) {
  const model::ModelSpec spec = untied_llama();
  for (const int64_t ranks : {2, 4}) {
    for (const int64_t zero : {0, 1, 2, 3}) {
      SCOPED_TRACE(zero);
      for (const RunResult& run :
           run_ranks_of(spec, {.data = ranks, .zero = zero, .samples = ranks})) {
        double all = 0;
        for (const auto& [name, elements] : run.unit_elements) all += static_cast<double>(elements);
        const auto output = static_cast<double>(run.unit_elements.at("output_layer"));
        // The counted tokens are summed as well, a number.
        const double numbers = (zero == 3 ? 3 * all - output : 2 * all) + 2;
        const auto d = static_cast<double>(ranks);
        EXPECT_DOUBLE_EQ(run.replica_bytes, 8 * numbers * (d - 1) / d);
      }
    }
  }
}

// Bytes of bf16 values, a float32 master, float32 gradients and two moments.
TEST(DataParallel, KeepsWhatTheFormulaSays) {
  const model::ModelSpec spec = untied_llama();
  constexpr int64_t kRanks = 4, kAhead = 2;
  for (const int64_t zero : {0, 1, 2, 3}) {
    SCOPED_TRACE(zero);
    dist::run_ranks(kRanks, [&](const dist::World& world) {
      const RunResult run = run_layout(
          spec, {.data = kRanks, .zero = zero, .gather_ahead = kAhead, .dtype = at::kBFloat16},
          world);
      int64_t all = 0, largest = 0;
      for (const auto& [name, elements] : run.unit_elements) {
        all += elements;
        largest = std::max(largest, elements);
      }
      const int64_t own = zero == 0 ? all : all / kRanks;
      EXPECT_EQ(run.memory.parameters, 2 * (zero == 3 ? own : all) + 4 * own);
      // With whole gradients the sum of the rank's slices is kept beside them.
      const int64_t gradients = zero == 0 ? all : zero == 1 ? all + own : own;
      EXPECT_EQ(run.memory.gradients, 4 * gradients);
      EXPECT_EQ(run.memory.states, 8 * own);
      const int64_t kept = run.memory.parameters + run.memory.gradients + run.memory.states;
      if (zero == 3) {
        EXPECT_EQ(kept, 18 * all / kRanks);
      }
      // Whole for a time: the unit in use and those ahead; gradients of one unit that come, and of
      // one on its way.
      EXPECT_LE(run.memory.unit_parameters, zero == 3 ? 2 * (1 + kAhead) * largest : 0);
      EXPECT_GE(run.memory.unit_parameters, zero == 3 ? 2 * 2 * largest : 0);
      EXPECT_LE(run.memory.unit_gradients, zero >= 2 ? 4 * 2 * largest : 0);
      EXPECT_GE(run.memory.unit_gradients, zero >= 2 ? 4 * largest : 0);
    });
  }
}

// LayerZeRO: a unit comes from all ranks once in a step, and from neighbours after that.
TEST(ParameterGathering, OneWideGatherOfAUnitInAStep) {
  const model::ModelSpec spec = tiny_model("llama");
  dist::run_ranks(4, [&](const dist::World& world) {
    const auto recorder = std::make_shared<trace::Recorder>();
    const RunResult run = [&] {
      const trace::Use use(recorder);
      return run_layout(spec, {.data = 4, .zero = 3, .zero_parameter_ranks = 2}, world);
    }();
    const auto units = static_cast<int64_t>(run.unit_elements.size());
    // The evaluation behind the last step is the first use of what that made.
    EXPECT_EQ(gathers_of(recorder->events(), "data").all, (kEqualitySteps + 1) * units);
    EXPECT_GT(gathers_of(recorder->events(), "data neighbours").all, kEqualitySteps * 3 * units);
  });
}

TEST(DataParallel, GradientsMayTravelInBf16) {
  const model::ModelSpec spec = tiny_model("llama");
  for (const int64_t zero : {0, 1, 2}) {
    SCOPED_TRACE(zero);
    const Layout layout{.data = 2, .zero = zero, .samples = 2};
    Layout in_bf16 = layout;
    in_bf16.reduce_dtype = "bf16";
    const RunResult exact = run_ranks_of(spec, layout)[0];
    const RunResult rounded = run_ranks_of(spec, in_bf16)[0];
    EXPECT_EQ(rounded.losses[0], exact.losses[0]);
    EXPECT_NE(rounded.norms[0], exact.norms[0]);
    EXPECT_NEAR(rounded.norms[0] / exact.norms[0], 1.0, 1e-2);
    EXPECT_NEAR(rounded.losses[2] / exact.losses[2], 1.0, 1e-2);
    // Two bytes instead of eight.
    const double gradients = zero == 0 ? 1.0 : 0.5;
    EXPECT_NEAR(rounded.replica_bytes / exact.replica_bytes, 1 - gradients * 0.75, 1e-3);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, DataParallelRun, ::testing::ValuesIn(tiny_model_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace qianli::testing
