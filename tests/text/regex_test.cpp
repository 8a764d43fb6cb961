// Regular expressions against Oniguruma in the `tokenizers` library
// (tools/reference/golden_regexes.py).
#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/text/pattern.h"
#include "tests/support/test_paths.h"

namespace qianli::text {
namespace {

std::vector<std::string> pieces(const Pattern& pattern, const std::string& text) {
  std::vector<std::string> all;
  size_t done = 0;
  const auto put = [&](size_t end) {
    if (end > done) all.push_back(text.substr(done, end - done));
    done = end;
  };
  Match found[3];  // small, so that searches are taken up again
  for (size_t count = std::size(found); count == std::size(found);) {
    count = pattern.find(text, done, found);
    for (size_t i = 0; i < count; ++i) {
      put(found[i].begin);
      put(found[i].end);
    }
  }
  put(text.size());
  return all;
}

using Pieces = std::vector<std::string>;

TEST(Regex, of_tokenizer_json_means_what_oniguruma_reads) {
  const Json cases =
      read_json(testing::source_path("tests/golden/tokenizer/regex_cases.json"), FileRole::kData);
  ASSERT_GT(cases.size(), 500u);
  for (const Json& item : cases) {
    const auto pattern = make_regex_pattern(item[0], RegexSyntax::kOniguruma, "test");
    EXPECT_EQ(pieces(*pattern, item[1]), item[2].get<Pieces>()) << item;
  }
}

TEST(Regex, of_a_rank_file_gives_nothing_back_behind_a_count) {
  for (const char* expression : {"\\p{N}{1,3}+", kCl100kRegex}) {
    const auto fancy = make_regex_pattern(expression, RegexSyntax::kFancyRegex, "test");
    EXPECT_EQ(pieces(*fancy, "12345"), (Pieces{"123", "45"})) << expression;
    const auto ruby = make_regex_pattern(expression, RegexSyntax::kOniguruma, "test");
    EXPECT_EQ(pieces(*ruby, "12345"), (Pieces{"12345"})) << expression;
  }
  EXPECT_EQ(pieces(*make_regex_pattern("a{1,2}+a", RegexSyntax::kFancyRegex, "test"), "aa"),
            (Pieces{"aa"}));
}

TEST(Regex, is_refused_by_name_where_the_meaning_would_be_another) {
  const std::pair<const char*, const char*> cases[] = {{"[a&&b]", "(&&)"},
                                                       {"[]a]", "begins with ]"},
                                                       {"[a-\\d]", "ends with a class"},
                                                       {"[[:graph:]]", "[:graph:]"},
                                                       {"a{2}?", "{n}?"},
                                                       {"a{3,1}", "swapped"},
                                                       {"*a", "nothing"},
                                                       {"^*", "of a place"},
                                                       {"a*?*", "lazy"},
                                                       {"(?<x>a)", "'(?<x'"},
                                                       {"(*FAIL)", "(* verb"},
                                                       {"\\pL", "name in braces"},
                                                       {"\\K", "\\K"},
                                                       {"(?i:[a[^b]])", "under (?i)"},
                                                       {"(?i:\\p{Lu})", "under (?i)"},
                                                       {"(a", "without )"},
                                                       {"a)", "without ("},
                                                       {"[a", "without ]"},
                                                       {"\\xe9", "\\x80"},
                                                       {"\\x{41", "\\x"},
                                                       {"\\", "backslash"}};
  for (const auto& [expression, says] : cases) {
    try {
      make_regex_pattern(expression, RegexSyntax::kOniguruma, "the/place");
      ADD_FAILURE() << expression << " was accepted";
    } catch (const DataError& error) {
      EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("the/place"), std::string::npos) << error.what();
    }
  }
  for (const char* expression : {"^a", "a$", "\\bа", "[[:alpha:]]", "(?m:.)", "[a--b]"}) {
    EXPECT_THROW(make_regex_pattern(expression, RegexSyntax::kFancyRegex, "test"), DataError)
        << expression;
  }
  for (const char* nested : {"(", "["}) {
    std::string deep;
    for (int i = 0; i < 5000; ++i) deep += nested;
    EXPECT_THROW(make_regex_pattern(deep, RegexSyntax::kOniguruma, "test"), DataError);
  }
}

// Where nothing matches for long, the way to the next match is gone once.
TEST(Regex, takes_time_in_proportion_to_the_text) {
  const std::string text(size_t{1} << 22, 'x');
  EXPECT_EQ(pieces(*make_regex_pattern("\\p{Nd}+", RegexSyntax::kOniguruma, "test"), text + "1"),
            (Pieces{text, "1"}));
}

}  // namespace
}  // namespace qianli::text
