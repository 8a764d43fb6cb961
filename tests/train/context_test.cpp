// Ranks that share the sequences, against the serial run.
#include "qianli/train/context.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/dist/rank_threads.h"
#include "qianli/model/presets.h"
#include "tests/train/layout_equality.h"

namespace qianli::testing {
namespace {

using data::ContextAlgorithm;

class ContextRun : public ::testing::TestWithParam<std::string> {};

constexpr int64_t kSamples = 4;

void expect_serial(const model::ModelSpec& spec, Layout layout, const RunResult& serial) {
  layout.samples = kSamples;
  SCOPED_TRACE(text_of(layout));
  dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
    expect_equal(run_layout(spec, layout, world), serial);
  });
}

TEST_P(ContextRun, equals_the_serial_run) {
  const model::ModelSpec spec = tiny_model(GetParam());
  const RunResult serial = run_serially(spec, {.samples = kSamples});
  for (const Layout& layout :
       {Layout{.context = {.size = 2}}, Layout{.context = {.size = 4, .window = 2}},
        Layout{.context = {.size = 4, .algorithm = ContextAlgorithm::kUlysses}},
        Layout{.context = {.size = 4, .algorithm = ContextAlgorithm::kHybrid, .inner = 2}},
        Layout{.context = {.size = 2, .algorithm = ContextAlgorithm::kKvAllGather}},
        Layout{.context = {.size = 4, .algorithm = ContextAlgorithm::kAdaptive}},
        Layout{.context = {.size = 4, .algorithm = ContextAlgorithm::kAdaptive, .inner = 2}},
        Layout{.data = 2, .context = {.size = 2}, .zero = 1}}) {
    expect_serial(spec, layout, serial);
  }
}

TEST_P(ContextRun, equals_the_serial_run_over_packed_documents) {
  const model::ModelSpec spec = tiny_model(GetParam());
  const RunResult serial = run_serially(spec, {.samples = kSamples, .packed = true});
  for (const Layout& layout :
       {Layout{.context = {.size = 4}, .packed = true},
        Layout{.context = {.size = 2, .algorithm = ContextAlgorithm::kUlysses}, .packed = true},
        Layout{.context = {.size = 4, .algorithm = ContextAlgorithm::kKvAllGather}, .packed = true},
        Layout{.context = {.size = 4, .algorithm = ContextAlgorithm::kAdaptive}, .packed = true},
        Layout{.data = 2,
        .context = {.size = 4, .algorithm = ContextAlgorithm::kAdaptive, .inner = 2},
        .packed = true}}) {
    expect_serial(spec, layout, serial);
  }
}

TEST_P(ContextRun, equals_the_serial_run_in_a_pipeline) {
  const model::ModelSpec spec = tiny_model(GetParam());
  expect_serial(spec, {.context = {.size = 2}, .zero = 1, .pipeline = 2},
                run_serially(spec, {.samples = kSamples}));
}

INSTANTIATE_TEST_SUITE_P(Models, ContextRun, ::testing::ValuesIn(tiny_model_names()),
                         [](const auto& info) { return info.param; });

// Several rows of a microbatch, and layers with other windows, each with a schedule of its own.
TEST(AdaptiveContext, equals_the_serial_run_with_windows_of_some_layers) {
  model::ModelSpec spec = tiny_model("llama");
  spec.sliding_window = 3;
  spec.layer_pattern = {model::MixerKind::kSlidingAttention, model::MixerKind::kAttention};
  const RunResult serial = run_serially(spec, {.samples = kSamples});
  for (const int64_t rows : {1, 2}) {
    expect_serial(spec,
                  {.context = {.size = 4,
                               .algorithm = ContextAlgorithm::kAdaptive,
                               .kept = data::KeptKeys::kAll,
                               .kept_interval = 1},
                   .rows = rows},
                  serial);
  }
}

// Everything of a router that depends on a token's place in the microbatch, and every loss.
TEST(ContextParallelRouter, draws_and_balances_as_the_serial_run_does) {
  model::ModelSpec spec = tiny_model("deepseek_v3");
  spec.moe->input_jitter = 0.1;
  spec.moe->aux_loss_coeff = 0.02;
  spec.moe->sequence_aux_loss_coeff = 0.03;
  spec.moe->device_aux_loss_coeff = 0.04;
  spec.moe->communication_aux_loss_coeff = 0.05;
  spec.moe->z_loss_coeff = 0.01;
  const RunResult serial = run_serially(spec, {.samples = kSamples, .packed = true});
  for (const auto algorithm : {ContextAlgorithm::kRing, ContextAlgorithm::kUlysses}) {
    expect_serial(spec, {.data = 2, .context = {.size = 2, .algorithm = algorithm}, .packed = true},
                  serial);
  }
}

std::string refusal(const config::Config& config, const model::ModelSpec& spec) {
  try {
    train::check_context(config, spec);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(ContextParallelCheck, refuses_what_needs_whole_sequences) {
  config::Config config;
  config.data.sequence_length = 16;
  config.parallel.context = 4;
  EXPECT_EQ(refusal(config, tiny_model("llama")), "");
  config.parallel.context = 8;
  config.parallel.context_algorithm = "ulysses";
  EXPECT_NE(refusal(config, tiny_model("llama")).find("heads, 4, got 8"), std::string::npos);
  config.parallel.context_algorithm = "hybrid";
  config.parallel.context_ulysses = 3;
  EXPECT_NE(refusal(config, tiny_model("llama")).find("nearest: 2 or 4"), std::string::npos);
  // Two heads on each rank of x, and four ranks of y that hold a sequence together.
  config::Config grid = config;
  grid.parallel = {.tensor = 8, .tensor_x = 2, .tensor_y = 4};
  EXPECT_EQ(refusal(grid, tiny_model("llama")), "");
  grid.parallel.context_algorithm = "ulysses";
  EXPECT_NE(refusal(grid, tiny_model("llama")).find("parallel.tensor_y=4"), std::string::npos);
  config.parallel.context_algorithm = "adaptive";
  EXPECT_NE(refusal(config, tiny_model("llama")).find("nearest: 2 or 4"), std::string::npos);
  config.parallel.context_ulysses = 2;
  EXPECT_EQ(refusal(config, tiny_model("llama")), "");
  config.parallel.context_cache_interval = 4;
  EXPECT_NE(refusal(config, tiny_model("llama")).find("less than the 4 layers, got 4"),
            std::string::npos);
  config.parallel.context_cache_interval = 0;
  config.parallel.context_algorithm = "ring";
  model::ModelSpec dropping = tiny_model("qwen3_moe");
  dropping.moe->capacity_factor = 1.0;
  EXPECT_NE(refusal(config, dropping).find("capacity_factor"), std::string::npos);
  const std::string recurrent = refusal(config, model::preset("mamba2-8b"));
  EXPECT_NE(recurrent.find("Mamba-2"), std::string::npos);
}

TEST(ContextOptions, know_the_widest_window) {
  config::ParallelConfig parallel;
  model::ModelSpec spec = tiny_model("llama");
  EXPECT_EQ(train::context_options(parallel, spec).mask_window, 0);
  spec.sliding_window = 3;
  spec.layer_pattern = {model::MixerKind::kSlidingAttention};
  EXPECT_EQ(train::context_options(parallel, spec).mask_window, 3);
  spec.layer_pattern.push_back(model::MixerKind::kAttention);
  EXPECT_EQ(train::context_options(parallel, spec).mask_window, 0);
}

TEST(SlicesCheck, RefusesWhatNeedsWholeSequences) {
  config::Config config;
  config.data.sequence_length = 16;
  config.parallel.schedule_slices = 4;
  const auto refused = [&](const model::ModelSpec& spec, const std::string& words) {
    try {
      train::check_slices(config, spec);
      ADD_FAILURE() << "accepted: " << words;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  EXPECT_NO_THROW(train::check_slices(config, tiny_model("llama")));
  refused(tiny_model("qwen3_moe"), "without balancing losses");
  refused(model::preset("mamba2-8b"), "Mamba-2");
  config.parallel.context = 2;
  refused(tiny_model("llama"), "parallel.context=1, got 2");
  config.data.sequence_length = 3;
  refused(tiny_model("llama"), "a token for each slice, got 3");
}

}  // namespace
}  // namespace qianli::testing
