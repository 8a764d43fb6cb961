#include "qianli/runs/compare_configs.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"

namespace qianli::runs {
namespace {

std::vector<SettingDifference> compare(const std::string& a, const std::string& b) {
  return compare_configs(a, "a.yaml", b, "b.yaml");
}

TEST(CompareConfigs, keys_that_differ_are_named_with_both_values) {
  const auto found = compare(
      "optim: {lr: 3.0e-4, betas: [0.9, 0.95]}\nrun: {dir: runs/a}\nparallel: {tensor: 1}\n",
      "optim: {lr: 0.0003, betas: [0.9, 0.99]}\nrun: {dir: runs/b}\nparallel: {tensor: 2}\n"
      "train: {seed: 7}\n");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].key, "optim.betas");
  EXPECT_EQ(found[0].a, "[0.9, 0.95]");
  EXPECT_EQ(found[0].b, "[0.9, 0.99]");
  EXPECT_FALSE(found[0].layout);
  EXPECT_EQ(found[1].key, "parallel.tensor");
  EXPECT_TRUE(found[1].layout);
  EXPECT_EQ(found[2].key, "train.seed");
  EXPECT_FALSE(found[2].a.has_value());
  EXPECT_EQ(found[2].b, "7");
}

TEST(CompareConfigs, text_is_no_number) {
  EXPECT_TRUE(compare("a: 1", "a: 1.0").empty());
  EXPECT_EQ(compare("a: \"1\"", "a: 1.0").size(), 1u);
  EXPECT_EQ(compare("a: null", "a: ''").size(), 1u);
  EXPECT_TRUE(compare("", "").empty());
}

TEST(CompareConfigs, lists_of_sections_are_compared_one_by_one) {
  const auto found = compare("data: {path: [{name: x, weight: 1}, {name: y, weight: 2}]}",
                             "data: {path: [{name: x, weight: 1}, {name: y, weight: 3}]}");
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].key, "data.path.1.weight");
}

TEST(CompareConfigs, what_is_no_yaml_is_refused_with_its_name) {
  try {
    compare("a: 1", "a: [");
    FAIL() << "expected a refusal";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("b.yaml"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace qianli::runs
