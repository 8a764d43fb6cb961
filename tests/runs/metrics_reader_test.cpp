#include "qianli/runs/metrics_reader.h"

#include <gtest/gtest.h>

#include <cmath>

#include "qianli/base/error.h"
#include "tests/support/test_paths.h"

namespace qianli::runs {
namespace {

std::vector<MetricsRecord> read_all(std::string_view text, bool* cut_off = nullptr) {
  MetricsReader reader(text, "metrics.jsonl");
  std::vector<MetricsRecord> records;
  while (auto record = reader.next()) records.push_back(std::move(*record));
  if (cut_off != nullptr) *cut_off = reader.cut_off();
  return records;
}

std::string refusal(std::string_view text) {
  try {
    read_all(text);
  } catch (const DataError& error) {
    return error.what();
  }
  return {};
}

TEST(MetricsReader, gives_values_with_the_names_of_what_they_lie_in) {
  const auto records = read_all(
      "{\"step\":1,\"loss\":2.5,\"text\":\"left out\"}\n\n"
      "{\"step\":7,\"moe_layers\":{\"decoder.layers.1.mlp\":{\"load\":3}},\"list\":[1,true]}\n");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].step, 1);
  EXPECT_EQ(records[0].values, (decltype(records[0].values){{"loss", 2.5}}));
  EXPECT_EQ(records[1].step, 7);
  EXPECT_EQ(records[1].values,
            (decltype(records[1].values){
                {"list.0", 1}, {"list.1", 1}, {"moe_layers.decoder.layers.1.mlp.load", 3}}));
}

TEST(MetricsReader, what_is_no_finite_number_is_a_nan) {
  const auto records = read_all("{\"step\":1,\"a\":null,\"b\":NaN,\"c\":-Infinity}\n");
  ASSERT_EQ(records.at(0).values.size(), 3u);
  for (const auto& [key, value] : records[0].values) EXPECT_TRUE(std::isnan(value)) << key;
}

TEST(MetricsReader, lines_of_one_step_are_one_record) {
  const auto records = read_all(
      "{\"step\":1,\"loss\":2}\n{\"step\":1,\"eval\":3}\n{\"step\":2,\"loss\":1}\n{\"step\":2}\n");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].values, (decltype(records[0].values){{"eval", 3}, {"loss", 2}}));
  EXPECT_EQ(records[1].step, 2);
  EXPECT_NE(refusal("{\"step\":1,\"loss\":2}\n{\"step\":1,\"loss\":2}\n").find("'loss' twice"),
            std::string::npos);
}

TEST(MetricsReader, half_a_line_at_the_end_is_left_out_and_said) {
  bool cut_off = false;
  EXPECT_EQ(read_all("{\"step\":1}\n{\"step\":2,\"lo", &cut_off).size(), 1u);
  EXPECT_TRUE(cut_off);
  EXPECT_EQ(read_all("{\"step\":1}\n{\"step\":2}", &cut_off).size(), 2u);
  EXPECT_FALSE(cut_off);
}

TEST(MetricsReader, other_damage_is_refused_with_its_line) {
  EXPECT_NE(refusal("{\"step\":1}\n{\"step\":2,\"lo\n{\"step\":3}\n").find("metrics.jsonl line 2"),
            std::string::npos);
  for (const char* text :
       {"[1]\n", "{}\n", "{\"step\":-1}\n", "{\"step\":1.5}\n", "{\"step\":9223372036854775808}\n",
        "{\"step\":\"1\"}\n", "{\"step\":1,\"loss\":1e999}\n", "{\"step\":1,\"a\":1,\"a\":2}\n",
        "{\"step\":5}\n{\"step\":4}\n", "\x80\n"}) {
    EXPECT_NE(refusal(text), "") << text;
  }
  EXPECT_NE(refusal("{\"step\":1,\"" + std::string(300, 'x') + "\":1}\n"), "");
  EXPECT_NE(refusal("{\"step\":1,\"x\":\"" + std::string(size_t{2} << 20, 'x') + "\"}\n"), "");
  EXPECT_NE(refusal(std::string(1000, '[') + "\n"), "");
}

TEST(MetricsReader, a_file_that_is_not_there_has_no_steps) {
  const testing::TemporaryFolder folder;
  EXPECT_FALSE(MetricsReader::open(folder / kMetricsName).next().has_value());
  write_file_atomically(folder / kMetricsName, "{\"step\":3}\n", FileRole::kData);
  EXPECT_EQ(MetricsReader::open(folder / kMetricsName).next().value().step, 3);
}

}  // namespace
}  // namespace qianli::runs
