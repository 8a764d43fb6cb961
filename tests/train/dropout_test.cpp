// What training drops is the same in every layout, in a second forward pass, and in microbatches of
// any size; and it has an effect.
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "qianli/dist/rank_threads.h"
#include "tests/train/layout_equality.h"

namespace qianli::testing {
namespace {

using data::ContextAlgorithm;

constexpr int64_t kSamples = 6;

void check(const model::ModelSpec& spec, Layout layout, const RunResult& serial) {
  layout.samples = kSamples;
  layout.dropout = 0.1;
  SCOPED_TRACE(text_of(layout));
  dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
    expect_equal(run_layout(spec, layout, world), serial);
  });
}

class DropoutRun : public ::testing::TestWithParam<std::string> {};

TEST_P(DropoutRun, DropsTheSameInEveryLayout) {
  const model::ModelSpec spec = tiny_model(GetParam());
  const RunResult serial = run_serially(spec, {.samples = kSamples, .dropout = 0.1});
  std::vector<Layout> layouts{
      {.data = 2, .zero = 1},
      {.tensor = 2},
      {.tensor = 2, .sequence = true},
      {.tensor = 4, .sequence = true},
      {.pipeline = 2},
      {.pipeline = 2, .schedule = "zb-h1"},
      {.pipeline = 2, .chunks = 2, .schedule = "interleaved", .recompute = "full"}};
  for (const auto algorithm :
       {ContextAlgorithm::kRing, ContextAlgorithm::kUlysses, ContextAlgorithm::kHybrid,
        ContextAlgorithm::kKvAllGather, ContextAlgorithm::kAdaptive}) {
    const bool hybrid = algorithm == ContextAlgorithm::kHybrid;
    layouts.push_back(
        {.context = {.size = hybrid ? 4 : 2, .algorithm = algorithm, .inner = hybrid ? 2 : 1},
         .tensor = hybrid ? 1 : 2,
         .sequence = !hybrid});
  }
  if (!spec.moe) layouts.push_back({.tensor = 4, .tensor_x = 2, .tensor_y = 2});
  if (spec.moe) layouts.push_back({.tensor = 2, .expert = 2, .expert_tensor = 1});
  for (const Layout& layout : layouts) check(spec, layout, serial);
}

INSTANTIATE_TEST_SUITE_P(Models, DropoutRun, ::testing::ValuesIn(tiny_model_names()),
                         [](const auto& info) { return info.param; });

TEST(Dropout, DoesNotDependOnTheSizeOfMicrobatches) {
  for (const char* name : {"llama", "gpt2"}) {
    for (const bool packed : {false, true}) {
      const RunResult serial =
          run_serially(tiny_model(name), {.samples = kSamples, .packed = packed, .dropout = 0.1});
      check(tiny_model(name), {.rows = 3, .packed = packed}, serial);
      check(tiny_model(name), {.data = 3, .rows = 2, .packed = packed}, serial);
      check(tiny_model(name), {.context = {.size = 2}, .rows = 2, .packed = packed}, serial);
    }
  }
}

TEST(Dropout, ARecomputedUnitDropsTheSameBitForBit) {
  for (const std::string& name : tiny_model_names()) {
    const auto run = [&](const char* recompute) {
      std::vector<RunResult> results(2);
      const Layout layout{.pipeline = 2, .recompute = recompute, .dropout = 0.1};
      dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
        RunResult result = run_layout(tiny_model(name), layout, world);
        results[static_cast<size_t>(result.stage)] = std::move(result);
      });
      return results;
    };
    const auto kept = run("none"), recomputed = run("full");
    for (size_t stage = 0; stage < kept.size(); ++stage) {
      EXPECT_EQ(kept[stage].losses, recomputed[stage].losses) << name;
      EXPECT_EQ(kept[stage].norms, recomputed[stage].norms) << name;
      for (const auto& [parameter, value] : kept[stage].parameters)
        EXPECT_TRUE(at::equal(value, recomputed[stage].parameters.at(parameter))) << parameter;
    }
  }
}

TEST(Dropout, ChangesTheTrainingAndNotTheEvaluation) {
  const model::ModelSpec spec = tiny_model("llama");
  const RunResult without = run_serially(spec, {.lr = 0}),
                  with = run_serially(spec, {.dropout = 0.1, .lr = 0});
  EXPECT_EQ(with.evaluation, without.evaluation);
  for (size_t i = 0; i < with.losses.size(); ++i)
    EXPECT_GT(std::abs(with.losses[i] - without.losses[i]), 1e-4);
}

}  // namespace
}  // namespace qianli::testing
