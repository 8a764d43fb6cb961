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
  // Fills `out` (of two or more) with the next matches at or after `from`, left to right. Fewer
  // than out.size() means that there are no more. `text` is valid UTF-8, `from` a character's start
  // and, but for 0, the end of the match found last. A match may be empty ("^", "(?=[A-Z])"), but
  // not where the one before it ends.
  virtual size_t find(std::string_view text, size_t from, std::span<Match> out) const = 0;
};

// Whose words a regular expression is written in.
enum class RegexSyntax {
  kOniguruma,   // of tokenizer.json: Ruby's, where ^ and $ are lines' ends and x{2}+ is (?:x{2})+
  kFancyRegex,  // of tiktoken and tekken.json: Rust's, where x{2}+ gives nothing back
};
// `where` names the expression's place in the file for errors; what PCRE2 cannot do with the same
// meaning is refused.
std::unique_ptr<const Pattern> make_regex_pattern(const std::string& expression, RegexSyntax syntax,
                                                  const std::string& where);
// The same through PCRE2 even where there is a scanner; tests compare the two.
std::unique_ptr<const Pattern> make_pcre_pattern(const std::string& expression, RegexSyntax syntax,
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
// cl100k as tiktoken has it, in fancy-regex's syntax: Llama 3's, but white space that ends the text
// stays in one piece.
extern const char kCl100kRegex[];
extern const char kO200kRegex[];
extern const char kKimiRegex[];

// The scanner for a known expression, or null.
std::unique_ptr<const Pattern> make_known_pattern(std::string_view expression);

}  // namespace qianli::text
