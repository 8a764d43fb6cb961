#include "qianli/text/unicode.h"

#include <gtest/gtest.h>

#include "qianli/text/normalizer.h"
#include "qianli/text/pattern.h"

namespace qianli::text {
namespace {

// Counts by Oniguruma in the `tokenizers` library (Unicode 16.0): a machine's utf8proc must not
// change them.
TEST(CharTable, has_the_classes_of_unicode_16) {
  const std::pair<uint16_t, int> counts[] = {
      {kLetter, 141028}, {kNumber, 1911}, {kPunctuation, 855},       {kSymbol, 8514},
      {kMark, 2501},     {kSpace, 25},    {kUpperLetter, 1858 + 31}, {kLowerLetter, 2258}};
  for (const auto& [mask, expected] : counts) {
    int count = 0;
    for (char32_t c = 0; c < 0x110000; ++c) count += (char_table().classes(c) & mask) != 0 ? 1 : 0;
    EXPECT_EQ(count, expected) << mask;
  }
}

TEST(Utf8, finds_what_is_ill_formed) {
  EXPECT_EQ(valid_utf8_prefix("abc\u00e9\u4f60\U0001F600"), 12u);
  EXPECT_EQ(valid_utf8_prefix("ab\xC3"), 2u);
  EXPECT_EQ(valid_utf8_prefix("\xED\xA0\x80"), 0u);  // a surrogate
  EXPECT_EQ(valid_utf8_prefix("\xF4\x90\x80\x80"), 0u);
  EXPECT_EQ(incomplete_tail("ab\xE4\xBD"), 2u);
  EXPECT_EQ(incomplete_tail("ab\xE4\xBD\xA0"), 0u);
  EXPECT_EQ(incomplete_tail("\xF0\x80"), 0u);  // cannot become a character
}

std::string normalized(std::string text, UnicodeForm form) {
  normalize_unicode(text, form);
  return text;
}

TEST(Normalizer, composes_as_the_reference_library_does) {
  const auto nfc = [](const char* text) { return normalized(text, UnicodeForm::kNfc); };
  EXPECT_EQ(nfc("e\u0301"), "\u00e9");
  EXPECT_EQ(nfc("\u1100\u1161\u11a8"), "\uac01");
  EXPECT_EQ(nfc("\uac00\u11a7"), "\uac00\u11a7");  // U+11A7 is no final
  EXPECT_EQ(nfc("\u212b"), "\u00c5");
  // Unicode 11 and 13: unassigned in the reference's tables, so they neither order nor compose.
  EXPECT_EQ(nfc("a\u0898\u0334"), "a\u0898\u0334");
  EXPECT_EQ(nfc("\U00011935\U00011930"), "\U00011935\U00011930");
  EXPECT_EQ(normalized("\u32ff", UnicodeForm::kNfkc), "\u32ff");
}

TEST(Normalizer, knows_text_that_is_surely_composed) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    if (!is_surely_nfc(text)) continue;
    // Alone, and behind and before characters that would compose or reorder.
    for (const std::string& around :
         {text, "e" + text, "e\u0301" + text, text + "\u0327\u0301", "\u1100" + text}) {
      if (!is_surely_nfc(around)) continue;
      ASSERT_EQ(normalized(around, UnicodeForm::kNfc), around)
          << std::hex << static_cast<uint32_t>(c);
    }
  }
}

std::vector<std::pair<size_t, size_t>> matches(const Pattern& pattern, std::string_view text) {
  std::vector<std::pair<size_t, size_t>> all;
  Match found[3];  // small, so that searches are taken up again
  size_t from = 0;
  for (size_t count = 3; count == 3;) {
    count = pattern.find(text, from, found);
    for (size_t i = 0; i < count; ++i) {
      all.emplace_back(found[i].begin, found[i].end);
      from = found[i].end;
    }
  }
  return all;
}

// Every text of up to four characters out of an alphabet with one character for each thing the
// expressions tell apart.
TEST(Scanners, match_as_the_regular_expressions_do) {
  const std::string alphabet[] = {" ",      "\n",     "\t",     "a",      "S", "'",    ".", "1",
                                  "\u00e9", "\u0301", "\u4f60", "\u017f", "l", "\x01", "/"};
  constexpr size_t kLetters = std::size(alphabet);
  for (const std::string& expression :
       {std::string(kGpt2Regex), std::string(kLlama3Regex), std::string(kQwen2Regex),
        std::string(kDeepSeekRegex), std::string(kO200kRegex), std::string(kKimiRegex),
        std::string("\\p{N}{1,3}"), std::string("[一-龥\u3040-ゟ゠-ヿ]+")}) {
    const auto scanner = make_known_pattern(expression);
    ASSERT_TRUE(scanner) << expression;
    const auto regex = make_pcre_pattern(expression, RegexSyntax::kFancyRegex, "test");
    for (size_t number = 0; number < kLetters * kLetters * kLetters * kLetters; ++number) {
      std::string text;
      for (size_t rest = number; rest > 0; rest /= kLetters) text += alphabet[rest % kLetters];
      ASSERT_EQ(matches(*scanner, text), matches(*regex, text)) << expression << "\n" << text;
    }
  }
}

}  // namespace
}  // namespace qianli::text
