#include "qianli/train/metrics.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/train/report.h"
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

std::string after_resuming(const std::string& lines, int64_t step) {
  const testing::TemporaryFolder place;
  write_file_atomically(place / "metrics.jsonl", lines, FileRole::kData);
  const config::LogConfig config{.tensorboard = false, .report = false};
  const Metrics metrics(place.path(), config, step, 5, 10);
  return read_file(place / "metrics.jsonl", FileRole::kData);
}

TEST(Metrics, steps_behind_the_resumed_one_and_half_a_line_are_dropped) {
  const std::string one = "{\"step\":1}\n", two = "{\"step\":2}\n", three = "{\"step\":3}\n";
  EXPECT_EQ(after_resuming(one + two + three, 2), one + two);
  EXPECT_EQ(after_resuming(one + two + three, 3), one + two + three);
  EXPECT_EQ(after_resuming(one + two + three, 0), "");
  EXPECT_EQ(after_resuming(one + two + "{\"step\":", 2), one + two);
  EXPECT_EQ(after_resuming(one + "{\"step\":2}", 2), one);
  EXPECT_EQ(after_resuming("", 2), "");
}

Json points_of(const std::string& page) {
  const std::string begin = "const steps=", end = ",validation=";
  const size_t at = page.find(begin) + begin.size();
  return parse_json(page.substr(at, page.find(end) - at), "report", FileRole::kData);
}

TEST(Report, long_runs_have_fewer_points_and_their_last) {
  const testing::TemporaryFolder place;
  std::string lines;
  for (int step = 1; step <= 40001; ++step)
    lines += fmt::format("{{\"step\":{},\"loss\":null,\"tokens_seen\":{}}}\n", step, step * 10);
  write_file_atomically(place / "metrics.jsonl", lines, FileRole::kData);
  write_report(place.path());
  const std::string page = read_file(place / "report.html", FileRole::kData);
  const Json points = points_of(page);
  EXPECT_GT(points.size(), 4000U);
  EXPECT_LT(points.size(), 8194U);
  EXPECT_EQ(points.front().at(0), 1);
  EXPECT_EQ(points.back().at(0), 40001);
  EXPECT_TRUE(points.back().at(1).is_null());
  EXPECT_NE(page.find("<b>40001</b>"), page.npos);
}

}  // namespace
}  // namespace qianli::train
