#include "qianli/train/metrics.h"

#include <gtest/gtest.h>

#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "tests/support/test_paths.h"

namespace qianli::train {
namespace {

Json record_of(bool per_layer) {
  const testing::TemporaryFolder place;
  const config::LogConfig config{
      .tensorboard = true, .report = false, .moe_per_layer_logging = per_layer};
  Metrics metrics(place.path(), config, 0, 5, 10);
  StepMetrics step{.step = 1, .loss = 2.5, .tokens = 10, .step_seconds = 0.5};
  step.routing = {.all = {.aux_loss = 1.5, .z_loss = 4.0, .max_load = 3.0},
                  .layers = {{"decoder.layers.1.mlp", {.aux_loss = 1.25, .max_load = 2.0}},
                             {"decoder.layers.3.mlp", {.aux_loss = 1.75, .max_load = 3.0}}}};
  metrics.record(step);
  return parse_json(read_file(place / "metrics.jsonl", FileRole::kData), "metrics.jsonl",
                    FileRole::kData);
}

TEST(Metrics, layers_with_experts_are_told_where_they_are_asked_for) {
  const Json plain = record_of(false);
  EXPECT_EQ(plain.at("moe_aux_loss"), 1.5);
  EXPECT_EQ(plain.at("moe_max_load"), 3.0);
  EXPECT_FALSE(plain.contains("moe_layers"));
  EXPECT_FALSE(plain.contains("moe_sequence_aux_loss"));
  const Json record = record_of(true);
  EXPECT_EQ(record.at("moe_aux_loss"), 1.5);
  const Json expected = {{"decoder.layers.1.mlp", {{"moe_aux_loss", 1.25}, {"moe_max_load", 2.0}}},
                         {"decoder.layers.3.mlp", {{"moe_aux_loss", 1.75}, {"moe_max_load", 3.0}}}};
  EXPECT_EQ(record.at("moe_layers"), expected);
}

}  // namespace
}  // namespace qianli::train
