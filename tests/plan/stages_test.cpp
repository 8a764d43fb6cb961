#include "qianli/plan/stages.h"

#include <gtest/gtest.h>

#include "qianli/model/presets.h"
#include "tests/config/expect_error.h"

namespace qianli::plan {
namespace {

using testing::expect_config_error;

model::ModelSpec spec_of(int64_t layers) {
  model::ModelSpec spec = model::preset("llama-tiny");
  spec.num_layers = layers;
  return spec;
}

// "0-2,3-5|…": first and last layer of every chunk of a stage.
std::string text_of(const Stages& stages) {
  std::string text;
  for (const auto& stage : stages.chunks) {
    if (!text.empty()) text += "|";
    for (size_t c = 0; c < stage.size(); ++c) {
      if (c > 0) text += ",";
      for (const auto& layer : stage[c].layers) text += std::to_string(layer.global);
    }
  }
  return text;
}

TEST(Stages, AutomaticScheduleFollowsFromTheChunks) {
  EXPECT_EQ(plan_stages({}, spec_of(3), 5).schedule.kind, ScheduleKind::k1F1B);
  const Stages even = plan_stages({.pipeline = 2}, spec_of(4), 3);
  EXPECT_EQ(even.schedule.kind, ScheduleKind::k1F1B);
  EXPECT_EQ(text_of(even), "01|23");
  const Stages ring = plan_stages({.pipeline = 2, .pipeline_chunks = 2}, spec_of(4), 4);
  EXPECT_EQ(ring.schedule.kind, ScheduleKind::kInterleaved);
  EXPECT_EQ(text_of(ring), "0,2|1,3");
  const Stages folded = plan_stages({.pipeline = 2, .schedule = "dualpipev"}, spec_of(4), 4);
  EXPECT_EQ(text_of(folded), "0,3|1,2");
}

TEST(Stages, LayersAreGivenInEveryForm) {
  const auto text = [](config::ParallelConfig parallel) {
    parallel.pipeline = 2;
    return text_of(plan_stages(parallel, spec_of(4), 4));
  };
  EXPECT_EQ(text({.layers = "1,3"}), "0|123");
  EXPECT_EQ(text({.layers = "[[1,0],[2,1]]"}), "0,|12,3");
  EXPECT_EQ(text({.layers = "Et|tt|t|L"}), "0,3|12,");
  EXPECT_EQ(text({.first_stage_layers = 1}), "0|123");
  EXPECT_EQ(text({.noop_layers = "0,5"}), "01|23");
  EXPECT_EQ(text({.noop_layers = "0,1"}), "0|123");
  EXPECT_EQ(plan_stages({.pipeline = 2, .layers = "[[1,0],[2,1]]"}, spec_of(4), 4).schedule.chunks,
            2);
}

TEST(Stages, SlicesAreCutEvenlyOrByWork) {
  config::ParallelConfig parallel{.pipeline = 2, .schedule = "seq1f1b", .schedule_slices = 4};
  EXPECT_EQ(configured_schedule(parallel, 3).slices, 4);
  const auto lengths = [&] {
    SliceOptions options = configured_slices(parallel, spec_of(4));
    options.sequence_length = 65536;
    return slice_lengths(options);
  };
  EXPECT_EQ(lengths(), std::vector<int64_t>(4, 16384));
  parallel.schedule_slicing = "work";
  const auto by_work = lengths();
  for (size_t i = 1; i < by_work.size(); ++i) EXPECT_LT(by_work[i], by_work[i - 1]);
}

TEST(Stages, RefusalsNameWhatFits) {
  const auto refuse = [](const config::ParallelConfig& parallel, int64_t microbatches,
                         const std::string& words, int64_t layers = 8) {
    expect_config_error([&] { plan_stages(parallel, spec_of(layers), microbatches); }, words);
  };
  refuse({.pipeline = 4, .pipeline_chunks = 2}, 6, "nearest that fits: 4 or 8 microbatches");
  refuse({.pipeline = 2, .schedule = "dualpipev"}, 2, "nearest that fits: 3 microbatches");
  refuse({.pipeline = 2, .schedule = "nanopipe"}, 4, "parallel.schedule=1f1b");
  refuse({.pipeline = 2, .schedule_slices = 2}, 4, "only seq1f1b cuts microbatches into slices");
  refuse({.pipeline = 3}, 4, "nearest: parallel.pipeline=2 or 4; or parallel.layers=\"3,3,2\"");
  refuse({.pipeline = 2, .pipeline_chunks = 3}, 4,
         "parallel.layers=\"[[2,1,1],[2,1,1]]\"; or 4 parallel.noop_layers");
  refuse({.pipeline = 2, .layers = "3,3"}, 4, "as even as it gets: \"4,4\"");
  refuse({.pipeline = 2, .pipeline_chunks = 3, .layers = "4,4"}, 6, "of 3 chunks a stage, got 1");
  refuse({.pipeline = 2, .layers = "4,4", .first_stage_layers = 2}, 4, "every chunk alone");
  refuse({.pipeline = 2, .noop_layers = "1,,2"}, 4, "expected parallel.noop_layers like '0,9'");
  refuse({.pipeline = 2, .noop_layers = "9999999999999999999"}, 4, "parallel.noop_layers like");
  refuse({.pipeline = 2, .recompute = "in_bubble"}, 4, "needs the interleaved schedule");
  refuse({.pipeline = 2, .detach_weight_grads = true}, 4, "only dualpipev detaches");
  refuse({.pipeline = 2, .layers = "x"}, 4, "expected");
}

TEST(Stages, MultiTokenPredictionStandsWithTheLoss) {
  model::ModelSpec spec = spec_of(4);
  spec.mtp.num_layers = 1;
  const Stages stages = plan_stages({.pipeline = 2, .layers = "Ett|ttmL"}, spec, 4);
  EXPECT_EQ(stages.chunks[1][0].mtp_layers, 1);
  expect_config_error([&] { plan_stages({.pipeline = 2, .layers = "Ett|ttL"}, spec, 4); },
                      "1 of multi-token prediction");
}

TEST(Stages, TheEmbeddingIsSharedWhereBothEndsNeedIt) {
  model::ModelSpec spec = spec_of(4);
  const auto shares = [&](const config::ParallelConfig& parallel) {
    return plan_stages(parallel, spec, 4).shares_embedding(spec);
  };
  spec.tie_word_embeddings = false;
  EXPECT_FALSE(shares({.pipeline = 2}));
  spec.tie_word_embeddings = true;
  EXPECT_TRUE(shares({.pipeline = 2}));
  EXPECT_TRUE(shares({.pipeline = 2, .pipeline_chunks = 2}));
  EXPECT_FALSE(shares({}));
  EXPECT_FALSE(shares({.pipeline = 2, .schedule = "dualpipev"})) << "both ends on one stage";
}

}  // namespace
}  // namespace qianli::plan
