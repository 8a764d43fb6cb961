// Pipelines of several stages train as one rank does, whatever the schedule.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <mutex>
#include <set>

#include "qianli/dist/rank_threads.h"
#include "qianli/model/presets.h"
#include "qianli/plan/prove.h"
#include "qianli/train/stage_links.h"
#include "tests/train/layout_equality.h"

namespace qianli::testing {
namespace {

constexpr double kTolerance = 1e-10;

// What a stage sends in all steps: of each unit whose chunk has a neighbour on another stage the
// stream or its gradient, T h elements, and ahead of the first activation of an edge its form.
double expected_bytes(const model::ModelSpec& spec, const Layout& layout, int64_t stage) {
  const plan::Schedule schedule = schedule_of(layout);
  int64_t messages = 0;
  std::set<int32_t> edges;
  for (const plan::Instruction& i : schedule.programs[static_cast<size_t>(stage)]) {
    if (plan::is_send(i.op)) ++messages;
    if (i.op == plan::Op::kSendActivation) edges.insert(i.chunk);
  }
  constexpr int64_t kTokens = 16;
  return static_cast<double>(kEqualitySteps * messages * kTokens * spec.hidden_size * 8 +
                             static_cast<int64_t>(edges.size()) * train::StageLinks::kFormBytes);
}

void expect_equal(const nn::StepRouting& run, const nn::StepRouting& serial) {
  EXPECT_EQ(run.layers.size(), serial.layers.size());
  EXPECT_NEAR(run.all.max_load, serial.all.max_load, kTolerance);
  EXPECT_EQ(run.all.aux_loss.has_value(), serial.all.aux_loss.has_value());
  EXPECT_NEAR(run.all.aux_loss.value_or(0), serial.all.aux_loss.value_or(0), kTolerance);
}

// `plain`: nothing but the stream travels.
void check(const model::ModelSpec& spec, const Layout& layout, const RunResult& serial,
           bool plain = true) {
  SCOPED_TRACE(text_of(layout));
  const auto peaks = plan::prove(schedule_of(layout)).peak_activations;
  std::mutex mutex;
  std::set<std::string> compared;
  dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
    const RunResult run = run_layout(spec, layout, world);
    expect_equal(run, serial);
    const int64_t stage = run.stage;
    EXPECT_EQ(run.peak_units, peaks[static_cast<size_t>(stage)]) << "on stage " << stage;
    if (plain) {
      EXPECT_EQ(run.message_bytes, expected_bytes(spec, layout, stage));
    }
    if (stage == 0 && serial.routing) {
      ASSERT_TRUE(run.routing);
      expect_equal(*run.routing, *serial.routing);
    }
    const std::lock_guard lock(mutex);
    for (const auto& [name, value] : run.parameters) compared.insert(name);
  });
  EXPECT_EQ(compared.size(), serial.parameters.size());
}

class PipelineRun : public ::testing::TestWithParam<std::string> {};

// Every kind of schedule, stage count and number of microbatches that fit together.
std::vector<Layout> grid() {
  std::vector<Layout> layouts;
  for (const plan::NamedSchedule& family : plan::schedule_names()) {
    if (family.kind == plan::ScheduleKind::kSeq1F1B) continue;
    const bool ring = family.kind == plan::ScheduleKind::kInterleaved ||
                      family.kind == plan::ScheduleKind::kNanoPipe;
    for (const int64_t stages : {2, 4}) {
      for (const int64_t microbatches : std::set<int64_t>{1, 2, stages, 3 * stages}) {
        const Layout layout{.pipeline = stages,
                            .chunks = ring ? 2 : 1,
                            .schedule = family.name,
                            .samples = microbatches};
        const plan::ScheduleOptions options{.kind = family.kind,
                                            .stages = stages,
                                            .microbatches = microbatches,
                                            .chunks = layout.chunks};
        if (plan::schedule_problems(options).empty()) layouts.push_back(layout);
      }
    }
  }
  return layouts;
}

TEST(Pipeline, EveryScheduleEqualsTheSerialRun) {
  model::ModelSpec spec = tiny_model("llama");
  spec.num_layers = 8;
  std::map<int64_t, RunResult> serial;
  const auto layouts = grid();
  EXPECT_GE(layouts.size(), 29U);
  for (const Layout& layout : layouts) {
    const auto [found, is_new] = serial.try_emplace(layout.samples);
    if (is_new) found->second = run_serially(spec, layout);
    check(spec, layout, found->second);
  }
}

TEST_P(PipelineRun, equals_the_serial_run) {
  const model::ModelSpec spec = tiny_model(GetParam());
  const RunResult serial = run_serially(spec, {.samples = 8});
  std::vector<Layout> layouts = {
      {.pipeline = 4, .schedule = "gpipe", .split = "[[2],[0],[1],[1]]"},
      {.pipeline = 4},
      {.pipeline = 4, .schedule = "zb-h1"},
      {.pipeline = 2, .chunks = 2, .schedule = "interleaved", .split = "[[1,0],[2,1]]"},
      {.pipeline = 2, .schedule = "dualpipev"},
      {.pipeline = 4, .chunks = 2, .schedule = "nanopipe", .split = "[[1,0],[0,1],[1,0],[0,1]]"},
      {.pipeline = 2, .schedule = "zb-h1", .split = "[[4],[0]]", .recompute = "full"},
      {.data = 2, .pipeline = 2, .split = "[[0],[4]]"},
      {.data = 2, .zero = 1, .pipeline = 2, .chunks = 2, .schedule = "interleaved"},
      {.data = 2, .zero = 1, .overlap = false, .pipeline = 2, .schedule = "dualpipev"},
      {.tensor = 2, .pipeline = 2, .schedule = "zb-h1"},
      {.tensor = 2, .sequence = true, .pipeline = 2, .chunks = 2, .schedule = "interleaved"}};
  for (Layout& layout : layouts) {
    layout.samples = 8;
    check(spec, layout, serial, /*plain=*/!layout.sequence);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, PipelineRun, ::testing::ValuesIn(tiny_model_names()),
                         [](const auto& info) { return info.param; });

TEST(Pipeline, RecomputesWhatItDidNotKeep) {
  model::ModelSpec spec = tiny_model("qwen3_moe");
  spec.num_layers = 8;
  const RunResult serial = run_serially(spec, {.samples = 8});
  for (const char* recompute : {"full", "in_advance", "in_bubble"}) {
    check(spec,
          {.pipeline = 4,
           .chunks = 2,
           .schedule = "interleaved",
           .recompute = recompute,
           .samples = 8},
          serial);
  }
}

TEST(Pipeline, SequencesOfSeveralLengthsTravel) {
  const model::ModelSpec spec = tiny_model("deepseek_v3");
  const Layout lengths{.several_lengths = true};
  const RunResult serial = run_serially(spec, lengths);
  for (Layout layout : {Layout{.pipeline = 4}, Layout{.pipeline = 2, .schedule = "dualpipev"},
                        Layout{.pipeline = 2, .chunks = 2, .schedule = "interleaved"}}) {
    layout.several_lengths = true;
    check(spec, layout, serial, /*plain=*/false);
  }
}

// Without the losses that look at whole microbatches.
model::ModelSpec without_balance(model::ModelSpec spec) {
  if (spec.moe) spec.moe->aux_loss_coeff = spec.moe->sequence_aux_loss_coeff = 0;
  return spec;
}

TEST(Pipeline, SlicesOfSequencesEqualTheSerialRun) {
  const model::ModelSpec spec = tiny_model("llama");
  std::map<int64_t, RunResult> serial;
  for (const int64_t stages : {2, 4}) {
    for (const int64_t microbatches : std::set<int64_t>{1, 2, stages}) {
      const auto [found, is_new] = serial.try_emplace(microbatches);
      if (is_new) found->second = run_serially(spec, {.samples = microbatches});
      for (const int64_t slices : {2, 3, 4}) {
        for (const char* slicing : {"even", "work"}) {
          check(spec,
                {.pipeline = stages,
                 .schedule = "seq1f1b",
                 .slices = slices,
                 .slicing = slicing,
                 .samples = microbatches},
                found->second, /*plain=*/false);
        }
      }
    }
  }
}

TEST_P(PipelineRun, equals_the_serial_run_in_slices) {
  const model::ModelSpec spec = without_balance(tiny_model(GetParam()));
  const Layout sliced{.pipeline = 2, .schedule = "seq1f1b", .slices = 3, .samples = 4};
  std::vector<Layout> layouts(8, sliced);
  layouts[0].pipeline = 1;
  layouts[1].packed = true;
  layouts[2].several_lengths = true;
  layouts[3].dropout = 0.1;
  layouts[4].recompute = "full";
  layouts[5].tensor = 2;
  layouts[5].sequence = true;
  layouts[6].data = 2;
  layouts[6].zero = 1;
  layouts[7].rows = 2;
  layouts[7].packed = true;
  for (const Layout& layout : layouts) {
    Layout serial = layout;
    serial.rows = 1;
    check(spec, layout, run_serially(spec, serial), /*plain=*/false);
  }
}

// Keys and values that later layers share, chosen keys (which have no gradient), and a mixture that
// joins the stream a layer later pass over the borders of stages, also through stages that do not
// read them.
TEST(Pipeline, WhatLayersLeaveForLaterOnesTravels) {
  model::ModelSpec sharing = tiny_model("llama");
  sharing.key_value_share_factor = 4;
  model::ModelSpec shortcut = tiny_model("qwen3_moe");
  shortcut.moe->shortcut = true;
  model::ModelSpec choosing = tiny_model("deepseek_v3");
  choosing.indexer = model::preset("deepseek-v3.2-671b").indexer;
  choosing.indexer->num_heads = 16;
  choosing.indexer->head_dim = 8;
  choosing.indexer->top_k = 5;
  choosing.indexer->frequency = 4;
  choosing.indexer->skip = 1;
  choosing.indexer->loss_coeff = 0.5;
  for (const model::ModelSpec& spec : {sharing, shortcut, choosing}) {
    const RunResult serial = run_serially(spec, {.samples = 4});
    for (const Layout& layout :
         {Layout{.pipeline = 4, .samples = 4},
          Layout{.pipeline = 2, .schedule = "zb-h1", .split = "[[1],[3]]", .samples = 4},
          Layout{.pipeline = 2,
          .chunks = 3,
          .schedule = "interleaved",
          .split = "[[1,0,1],[1,0,1]]",
          .samples = 4}}) {
      check(spec, layout, serial, /*plain=*/false);
    }
  }
}

}  // namespace
}  // namespace qianli::testing
