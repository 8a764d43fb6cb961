#include "qianli/config/name_pattern.h"

#include <gtest/gtest.h>

#include "tests/config/expect_error.h"

namespace qianli::config {
namespace {

using testing::expect_config_error;

TEST(NamePattern, a_glob_matches_the_whole_name) {
  EXPECT_TRUE(NamePattern("*.bias").matches("layers.0.attention.bias"));
  EXPECT_FALSE(NamePattern("*.bias").matches("layers.0.bias.weight"));
  EXPECT_TRUE(NamePattern("layers.[0-3].*").matches("layers.2.mlp.weight"));
  EXPECT_FALSE(NamePattern("layers.?.mlp").matches("layers.10.mlp"));
}

TEST(NamePattern, an_expression_in_slashes_matches_anywhere) {
  EXPECT_TRUE(NamePattern("/layers\\.[01]\\./").matches("model.layers.1.weight"));
  EXPECT_FALSE(NamePattern("/layers\\.[01]\\./").matches("model.layers.11.weight"));
  EXPECT_TRUE(NamePattern("/^norm$/").matches("norm"));
}

TEST(NamePattern, refuses_what_is_no_pattern) {
  expect_config_error([] { NamePattern(""); }, "expected a pattern");
  expect_config_error([] { NamePattern("/a"); }, "end it with a slash");
  expect_config_error([] { NamePattern("/[/"); }, "missing terminating ]");
  expect_config_error([] { NamePattern("/(a+)+$/").matches(std::string(60, 'a') + "b"); },
                      "match limit exceeded");
}

}  // namespace
}  // namespace qianli::config
