// What a pre-tokenizer splits at: literal strings, character classes, the well-known regular
// expressions as hand-written scanners, and any other regular expression through PCRE2.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace qianli::text {

// Bytes [begin, end) of the text searched.
struct Match {
  size_t begin, end;
};

class Pattern {
 public:
  virtual ~Pattern() = default;
  // Fills `out` with the next matches at or after `from`, left to right, none empty. Fewer than
  // out.size() means that there are no more. `text` is valid UTF-8, `from` a character's start and,
  // but for 0, the end of the match found last.
  virtual size_t find(std::string_view text, size_t from, std::span<Match> out) const = 0;
};

// `expression` in the syntax of Oniguruma (what tokenizer.json files use). `where` names its place
// in the file for errors; an expression that PCRE2 would read differently is refused.
std::unique_ptr<const Pattern> make_regex_pattern(const std::string& expression,
                                                  const std::string& where);
// The same through PCRE2 even where there is a scanner; tests compare the two.
std::unique_ptr<const Pattern> make_pcre_pattern(const std::string& expression,
                                                 const std::string& where);
std::unique_ptr<const Pattern> make_literal_pattern(const std::string& text);
// Maximal runs (or single characters) with one of the classes of `mask` (CharClass).
std::unique_ptr<const Pattern> make_class_pattern(uint16_t mask, bool runs);
// Single punctuation characters, as the reference library's Punctuation sees them.
std::unique_ptr<const Pattern> make_punctuation_pattern();
// \w+|[^\w\s]+ with the join controls among \w.
std::unique_ptr<const Pattern> make_words_pattern();

extern const char kGpt2Regex[];
extern const char kLlama3Regex[];
extern const char kQwen2Regex[];
extern const char kDeepSeekRegex[];  // the third of its three splits
// cl100k as tiktoken has it: Llama 3's, but white space that ends the text stays in one piece.
extern const char kCl100kRegex[];
extern const char kO200kRegex[];
extern const char kKimiRegex[];

// The scanner for a known expression, or null.
std::unique_ptr<const Pattern> make_known_pattern(std::string_view expression);

}  // namespace qianli::text
