#include "qianli/base/json.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"

namespace qianli {
namespace {

std::string refusal(std::string_view text) {
  try {
    parse_json(text, "x.json", FileRole::kConfig);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(json, refuses_what_the_parser_alone_would_let_pass) {
  EXPECT_NE(refusal(R"({"a":1,"b":{"a":2},"a":3})").find("duplicate key 'a'"), std::string::npos);
  EXPECT_NE(refusal(std::string("{}\0{", 4)).find("zero byte"), std::string::npos);
  EXPECT_NE(refusal(std::string(65, '[') + std::string(65, ']')).find("64 levels"),
            std::string::npos);
  EXPECT_NE(refusal("{} {}").find("x.json is not valid JSON"), std::string::npos);
  EXPECT_EQ(refusal(std::string(64, '[') + std::string(64, ']')), "accepted");
}

TEST(json, says_where_and_why_without_the_parsers_own_words) {
  EXPECT_EQ(refusal("[[1, 2],\n [3, x]]"),
            "[file] x.json is not valid JSON: line 2, column 6: invalid literal.");
  EXPECT_EQ(
      refusal("[[1, 2"),
      "[file] x.json is not valid JSON: line 1, column 7: unexpected end of input; expected ']'.");
  EXPECT_EQ(refusal(""),
            "[file] x.json is not valid JSON: line 1, column 1: unexpected end of input; expected "
            "'[', '{', or a literal.");
  EXPECT_EQ(refusal("[1e999]"),
            "[file] expected numbers of at most 1.8e308 in x.json, got a larger one.");
  const std::string open_text = "[\"" + std::string(5000, 'a');
  EXPECT_LT(refusal(open_text).size(), 150u);
}

TEST(json, numbers_that_only_python_writes_are_null) {
  const auto parse = [](std::string_view text) {
    return parse_json(text, "x.json", FileRole::kConfig);
  };
  const Json read = parse(R"({"limit": [0.0, Infinity], "a": -Infinity, "b": NaN,"c":[NaN,NaN]})");
  EXPECT_EQ(read, parse(R"({"limit": [0.0, null], "a": null, "b": null, "c": [null, null]})"));
  EXPECT_EQ(parse("NaN"), Json());
  EXPECT_EQ(parse_ordered_json("[Infinity]", "x.json", FileRole::kConfig).dump(), "[null]");
  // In strings and as keys they are what they were.
  EXPECT_EQ(parse(R"({"Infinity": "NaN \" -Infinity"})")["Infinity"], "NaN \" -Infinity");
  for (const char* text :
       {"[-NaN]", "[--Infinity]", "[Infinity1]", "[1NaN]", "[NaNNaN]", "{NaN: 1}", "[nan]", "[Inf]",
        "[+Infinity]", "[nullInfinity]", "NaN NaN"}) {
    EXPECT_NE(refusal(text), "accepted") << text;
  }
  EXPECT_EQ(refusal("[Infinity,\n -Infinity, x]"),
            "[file] x.json is not valid JSON: line 2, column 13: invalid literal.");
}

TEST(error, a_sentence_ends_with_one_stop) {
  EXPECT_STREQ(DataError("a", "expected x, got y", "do z").what(),
               "[a] expected x, got y. Hint: do z.");
  EXPECT_STREQ(DataError("a", "expected x, got y.", "do z?").what(),
               "[a] expected x, got y. Hint: do z?");
}

// Of quadratic work this would be minutes.
TEST(json, takes_time_in_proportion_to_the_text) {
  std::string text = "[";
  for (int i = 0; i < 1'000'000; ++i) text += "{},";
  EXPECT_EQ(parse_json(text + "{}]", "x.json", FileRole::kConfig).size(), 1'000'001u);
}

TEST(json, brackets_in_texts_are_not_depth) {
  const std::string brackets(100, '[');
  EXPECT_EQ(parse_json("\"\\\"" + brackets + "\"", "x.json", FileRole::kConfig), "\"" + brackets);
}

}  // namespace
}  // namespace qianli
