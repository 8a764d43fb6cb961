// Layouts of every kind at once, drawn from all that fit on up to 16 ranks, against the serial run.
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <string>
#include <tuple>

#include "qianli/base/error.h"
#include "qianli/base/random.h"
#include "qianli/dist/rank_threads.h"
#include "qianli/plan/mesh.h"
#include "tests/train/layout_equality.h"

namespace qianli::testing {
namespace {

using data::ContextAlgorithm;

constexpr int64_t kMostRanks = 16;

// Of a model. The slow test draws more.
size_t layouts() {
  const char* given = std::getenv("QIANLI_TEST_LAYOUTS");
  return given ? std::stoul(given) : 12;
}

struct PipelineOf {
  int64_t stages, chunks;
  const char* schedule;
  int64_t slices = 1;
};

constexpr PipelineOf kPipelines[] = {{1, 1, "1f1b"},  {2, 1, "1f1b"},        {2, 1, "gpipe"},
                                     {2, 1, "zb-h1"}, {2, 2, "interleaved"}, {2, 1, "dualpipev"},
                                     {4, 1, "1f1b"},  {4, 1, "zb-h1"},       {1, 1, "1f1b"},
                                     {1, 1, "1f1b"},  {1, 1, "1f1b"},        {2, 1, "seq1f1b", 3}};

// A function of its number; not all fit.
Layout drawn(uint64_t number, bool experts) {
  uint64_t next = 0;
  const auto one_of = [&](const auto& choices) {
    const double u = uniform_at(random_key(number, "layout"), next++);
    return std::data(choices)[static_cast<size_t>(u * static_cast<double>(std::size(choices)))];
  };
  const PipelineOf pipeline = one_of(kPipelines);
  Layout layout{.data = one_of(std::vector<int64_t>{1, 2, 3, 4}),
                .zero = one_of(std::vector<int64_t>{0, 1, 2, 3, 3}),
                .overlap_gather = one_of(std::vector<int>{0, 1}) == 1,
                .bucket_elements = one_of(std::vector<int64_t>{300, 5000}),
                .overlap = one_of(std::vector<int>{0, 1}) == 1,
                .tensor = one_of(std::vector<int64_t>{1, 2, 4}),
                .pipeline = pipeline.stages,
                .chunks = pipeline.chunks,
                .schedule = pipeline.schedule,
                .slices = pipeline.slices,
                .packed = one_of(std::vector<int>{0, 0, 1}) == 1};
  // Few enough for many layouts, and enough for the schedule.
  layout.samples = layout.data * std::max<int64_t>(2, pipeline.stages);
  if (pipeline.schedule == std::string("dualpipev")) layout.samples *= 2;
  if (layout.tensor == 4 && one_of(std::vector<int>{0, 1}) == 1)
    layout.tensor_x = layout.tensor_y = 2;
  layout.sequence =
      layout.tensor > 1 && layout.tensor_y == 1 && one_of(std::vector<int>{0, 1}) == 1;
  if (layout.tensor > 1) layout.tensor_slices = one_of(std::vector<int64_t>{1, 1, 2, 3});
  layout.context.size = one_of(std::vector<int64_t>{1, 1, 2, 4});
  if (layout.context.size * layout.tensor_y > 1) {
    layout.context.algorithm = one_of(
        std::vector{ContextAlgorithm::kRing, ContextAlgorithm::kUlysses, ContextAlgorithm::kHybrid,
                    ContextAlgorithm::kKvAllGather, ContextAlgorithm::kAdaptive});
    if (layout.context.algorithm == ContextAlgorithm::kHybrid) layout.context.inner = 2;
    if (layout.context.algorithm == ContextAlgorithm::kAdaptive)
      layout.context.inner = one_of(std::vector<int64_t>{1, 1, 2});
  }
  const std::vector<int64_t> neighbours{0, 0, 2, 4};
  const int64_t zero_ranks = one_of(neighbours), near = one_of(neighbours);
  const int64_t replicas = layout.data * layout.context.size;
  if (layout.zero > 0 && zero_ranks > 0 && replicas % zero_ranks == 0)
    layout.zero_ranks = zero_ranks;
  const int64_t sharing = layout.zero_ranks == 0 ? replicas : layout.zero_ranks;
  if (layout.zero == 3 && near > 0 && sharing % near == 0) layout.zero_parameter_ranks = near;
  if (experts) {
    layout.expert = one_of(std::vector<int64_t>{1, 2, 2, 4});
    layout.expert_tensor = one_of(std::vector<int64_t>{0, 0, 1, 2});
    layout.expert_dispatcher = one_of(std::vector<const char*>{"all_to_all", "all_gather"});
  }
  layout.dropout = one_of(std::vector<double>{0, 0.1});
  return layout;
}

bool fits(const model::ModelSpec& spec, const Layout& layout) {
  if (layout.ranks() == 1 || layout.ranks() > kMostRanks) return false;
  const plan::MeshSizes sizes{.world = layout.ranks(),
                              .tensor = layout.tensor,
                              .context = layout.context.size,
                              .pipeline = layout.pipeline,
                              .expert = layout.expert,
                              .expert_tensor = layout.expert_tensor};
  if (!plan::mesh_problems(sizes).empty()) return false;
  if (!plan::part_problems(spec, part_of(layout)).empty()) return false;
  if (spec.compressed_attention && layout.context.size > 1) return false;
  data::ContextOptions together = layout.context;
  together.size *= layout.tensor_y;
  const int64_t heads = spec.num_attention_heads * layout.tensor_y / layout.tensor;
  if (together.size > 1 && !data::context_problems(together, heads, 16).empty()) return false;
  // Balancing losses look at whole microbatches.
  if (layout.slices > 1 && (spec.moe || together.size > 1)) return false;
  try {
    schedule_of(layout);
  } catch (const ConfigError&) {
    return false;
  }
  return layout.schedule != std::string("dualpipev") || !spec.tie_word_embeddings;
}

class LayoutMatrix : public ::testing::TestWithParam<std::string> {};

TEST_P(LayoutMatrix, equals_the_serial_run) {
  const model::ModelSpec spec = tiny_model(GetParam());
  std::map<std::tuple<int64_t, bool, bool>, RunResult> serial;  // by samples, packed, dropout
  std::set<std::string> seen;
  int64_t most_ranks = 0, grids = 0;
  for (uint64_t number = 0; seen.size() < layouts(); ++number) {
    ASSERT_LT(number, 10'000U);
    const Layout layout = drawn(random_key(number, GetParam()), spec.moe.has_value());
    if (!fits(spec, layout) || !seen.insert(text_of(layout)).second) continue;
    SCOPED_TRACE(text_of(layout));
    most_ranks = std::max(most_ranks, layout.ranks());
    grids += layout.tensor_y > 1 ? 1 : 0;
    const auto [expected, is_new] =
        serial.try_emplace({layout.samples, layout.packed, layout.dropout > 0});
    if (is_new) expected->second = run_serially(spec, layout);
    dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
      expect_equal(run_layout(spec, layout, world), expected->second);
    });
  }
  EXPECT_GE(most_ranks, 12);
  const bool dense = !spec.moe && !spec.latent_attention;
  EXPECT_EQ(grids > 2, dense) << grids;
}

// Adapters beside frozen weights; on every other layout they are of some layers and modules, and
// the embedding and a norm are trained whole.
TEST_P(LayoutMatrix, equals_the_serial_run_with_adapters) {
  const model::ModelSpec spec = tiny_model(GetParam());
  const config::TuneConfig all{.method = "lora", .r = 3};
  config::TuneConfig some{.method = "lora", .r = 2, .use_rslora = true, .layers = "1,3"};
  some.target_modules = {{"linear_proj"}, {"linear_fc1"}, {"linear_fc2"}};
  if (!spec.latent_attention)
    some.target_modules.push_back({spec.compressed_attention ? "linear_kv_proj" : "linear_qkv"});
  some.modules_to_save = {{"word_embeddings"}, {"*.3.input_layernorm"}};
  std::map<std::tuple<int64_t, bool, bool, bool>, RunResult> serial;
  std::set<std::string> seen;
  std::set<int64_t> zero;
  for (uint64_t number = 0; seen.size() < layouts() / 2; ++number) {
    ASSERT_LT(number, 10'000U);
    Layout layout = drawn(random_key(number, "adapters of " + GetParam()), spec.moe.has_value());
    layout.tune = number % 2 == 0 ? all : some;
    if (!fits(spec, layout) || !seen.insert(text_of(layout)).second) continue;
    const std::string text = text_of(layout) + (number % 2 == 0 ? " (all)" : " (some)");
    zero.insert(layout.zero);
    const auto [expected, is_new] =
        serial.try_emplace({layout.samples, layout.packed, layout.dropout > 0, number % 2 == 0});
    if (is_new) expected->second = run_serially(spec, layout);
    dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
      SCOPED_TRACE(text);
      expect_equal(run_layout(spec, layout, world), expected->second);
    });
  }
  EXPECT_GE(zero.size(), 2U);
}

// The base in 4 bits. Blocks are those of the rank's own part, so its numbers are such as 4 bits
// hold.
TEST_P(LayoutMatrix, equals_the_serial_run_with_a_quantised_base) {
  const model::ModelSpec spec = tiny_model(GetParam());
  std::map<std::tuple<int64_t, bool, bool>, RunResult> serial;
  std::set<std::string> seen;
  std::set<int64_t> zero, tensor;
  for (uint64_t number = 0; seen.size() < layouts() / 2; ++number) {
    ASSERT_LT(number, 10'000U);
    Layout layout = drawn(random_key(number, "4 bits of " + GetParam()), spec.moe.has_value());
    layout.tune = {.method = "lora", .r = 3, .quantization = "nf4"};
    layout.tune.double_quant = number % 2 == 0;  // the magnitudes are all the same
    if (!fits(spec, layout) || !seen.insert(text_of(layout)).second) continue;
    zero.insert(layout.zero);
    tensor.insert(layout.tensor);
    const auto [expected, is_new] =
        serial.try_emplace({layout.samples, layout.packed, layout.dropout > 0});
    if (is_new) expected->second = run_serially(spec, layout);
    dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
      SCOPED_TRACE(text_of(layout));
      expect_equal(run_layout(spec, layout, world), expected->second);
    });
  }
  EXPECT_GE(zero.size(), 2U);
  EXPECT_GE(tensor.size(), 2U);
}

// One rank has a number that is not finite; all end the same step with the same words.
TEST(NonFinite, EveryRankNamesTheSameTensor) {
  for (Layout layout : {Layout{.data = 2, .tensor = 2, .pipeline = 2},
                        Layout{.data = 2, .expert = 2}, Layout{.context = {.size = 2}}}) {
    layout.poisoned = "decoder.layers.3.self_attention.linear_proj.weight";
    SCOPED_TRACE(text_of(layout));
    dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
      try {
        run_layout(tiny_model("qwen3_moe"), layout, world);
        ADD_FAILURE() << "went on";
      } catch (const NonFiniteError& error) {
        EXPECT_NE(std::string(error.what()).find("parameter " + layout.poisoned), std::string::npos)
            << error.what();
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Models, LayoutMatrix, ::testing::ValuesIn(tiny_model_names()),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(SlowExpertsInOneTensor, LayoutMatrix, ::testing::Values("gpt_oss"),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(WholeSequences, LayoutMatrix, ::testing::Values("deepseek_v4"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace qianli::testing
