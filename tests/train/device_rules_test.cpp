// Training steps whose tensors travel by the rules of a device's communicators: what NCCL would
// hang on shows here, without a GPU.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <ostream>
#include <set>

#include "qianli/dist/rank_threads.h"
#include "tests/support/ordered_transport.h"
#include "tests/train/layout_equality.h"

namespace qianli::testing {
namespace {

struct Case {
  const char* name;
  const char* model;
  Layout layout;
};

std::string routes_of(const OrderedTransport& transport) {
  std::set<std::string> names;
  for (const dist::Communicator& each : transport.opened()) names.insert(each.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

std::ostream& operator<<(std::ostream& out, const Case& each) { return out << each.name; }

class DeviceRules : public ::testing::TestWithParam<Case> {};

TEST_P(DeviceRules, hold_in_a_step_that_equals_the_serial_one) {
  const auto& [name, model, layout] = GetParam();
  const model::ModelSpec spec = tiny_model(model);
  const RunResult serial = run_serially(spec, layout);
  const auto transport = std::make_shared<OrderedTransport>();
  std::vector<RunResult> runs(static_cast<size_t>(layout.ranks()));
  const auto body = [&](const dist::World& world) {
    runs[static_cast<size_t>(world.rank())] = run_layout(spec, layout, world);
  };
  ASSERT_NO_THROW(dist::run_ranks(layout.ranks(), body, std::chrono::seconds(40), [&](int64_t) {
    return dist::Devices{transport, {}};
  })) << fmt::format("{}", fmt::join(transport->broken_rules(), "\n"));
  EXPECT_EQ(transport->broken_rules(), std::vector<std::string>());
  EXPECT_GT(transport->operations(), 10) << routes_of(*transport);
  for (const RunResult& run : runs) expect_equal(run, serial);
}

using data::ContextAlgorithm;
const Case kCases[] = {
    {"data", "llama", {.data = 2}},
    {"zero_3_overlapped", "llama", {.data = 2, .zero = 3, .gather_ahead = 2}},
    {"zero_2_shared_by_two_of_four", "gpt2", {.data = 4, .zero = 2, .zero_ranks = 2}},
    {"tensor_and_sequence", "llama", {.tensor = 2, .sequence = true, .tensor_slices = 2}},
    {"tensor_in_two_dimensions", "llama", {.tensor = 4, .tensor_x = 2, .tensor_y = 2}},
    {"ring", "llama", {.context = {.size = 3, .algorithm = ContextAlgorithm::kRing}}},
    {"double_ring",
     "llama",
     {.context = {.size = 4, .algorithm = ContextAlgorithm::kRing, .window = 2}}},
    {"adaptive",
     "llama",
     {.context = {.size = 4, .algorithm = ContextAlgorithm::kAdaptive}, .packed = true}},
    {"ulysses", "llama", {.context = {.size = 2, .algorithm = ContextAlgorithm::kUlysses}}},
    {"experts", "qwen3_moe", {.data = 2, .expert = 2}},
    {"experts_by_all_gather",
     "qwen3_moe",
     {.data = 2, .expert = 2, .expert_dispatcher = "all_gather"}},
    {"pipeline", "gpt2", {.pipeline = 4, .samples = 8}},
    {"pipeline_of_several_lengths",
     "llama",
     {.pipeline = 2, .samples = 8, .several_lengths = true}},
    {"interleaved", "llama", {.pipeline = 2, .chunks = 2, .schedule = "interleaved"}},
    {"zero_bubble", "llama", {.pipeline = 2, .schedule = "zb-h1"}},
    {"nanopipe",
     "llama",
     {.pipeline = 4, .chunks = 2, .schedule = "nanopipe", .split = "[[1,0],[0,1],[1,0],[0,1]]"}},
    {"dual_pipe_v", "llama", {.pipeline = 2, .schedule = "dualpipev"}},
    {"dual_pipe_v_of_several_lengths",
     "llama",
     {.pipeline = 2, .schedule = "dualpipev", .several_lengths = true}},
    {"slices", "llama", {.pipeline = 2, .schedule = "seq1f1b", .slices = 2}},
    {"predictions_ahead", "deepseek_v3", {.pipeline = 2}},
    {"tensor_pipeline_and_data", "llama", {.data = 2, .zero = 1, .tensor = 2, .pipeline = 2}},
};
INSTANTIATE_TEST_SUITE_P(Layouts, DeviceRules, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace qianli::testing
