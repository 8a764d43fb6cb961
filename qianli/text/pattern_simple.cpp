// Patterns that are no regular expressions: literals, character classes, words.
#include <string>
#include <utility>

#include "qianli/text/old_unicode.h"
#include "qianli/text/scan.h"

namespace qianli::text {
namespace {

class ClassPattern : public Pattern {
 public:
  ClassPattern(uint16_t mask, bool runs) : mask_(mask), runs_(runs) {}
  size_t find(std::string_view view, size_t from, std::span<Match> out) const override {
    const Text text(view);
    size_t count = 0;
    for (size_t at = from; count < out.size();) {
      at = text.end_of_run(at, mask_, false);
      const Char c = text.at(at);
      if (c.size == 0) break;
      const size_t end = runs_ ? text.end_of_run(at, mask_) : at + c.size;
      out[count++] = {at, end};
      at = end;
    }
    return count;
  }

 private:
  uint16_t mask_;
  bool runs_;
};

struct Words {
  static bool next(const Text& text, size_t begin, size_t& end) {
    const Char first = text.at(begin);
    if (first.is(kSpace)) return false;
    const bool word = is_word(first);
    for (end = begin + first.size;;) {
      const Char c = text.at(end);
      if (c.size == 0 || c.is(kSpace) || is_word(c) != word) return true;
      end += c.size;
    }
  }
  static bool is_word(const Char& c) { return c.is(kWord) || c.code == 0x200C || c.code == 0x200D; }
};

struct Punctuation {
  static bool next(const Text& text, size_t begin, size_t& end) {
    const Char c = text.at(begin);
    end = begin + c.size;
    return has_old_class(c.code, OldClass::kPunctuation);
  }
};

class LiteralPattern : public Pattern {
 public:
  explicit LiteralPattern(std::string literal) : literal_(std::move(literal)) {}
  size_t find(std::string_view text, size_t from, std::span<Match> out) const override {
    size_t count = 0;
    while (count < out.size() && !literal_.empty()) {
      const size_t at = text.find(literal_, from);
      if (at == std::string_view::npos) break;
      from = at + literal_.size();
      out[count++] = {at, from};
    }
    return count;
  }

 private:
  std::string literal_;
};

}  // namespace

std::unique_ptr<const Pattern> make_literal_pattern(const std::string& text) {
  return std::make_unique<LiteralPattern>(text);
}
std::unique_ptr<const Pattern> make_class_pattern(uint16_t mask, bool runs) {
  return std::make_unique<ClassPattern>(mask, runs);
}
std::unique_ptr<const Pattern> make_punctuation_pattern() {
  return std::make_unique<ScannerPattern<Punctuation>>();
}
std::unique_ptr<const Pattern> make_words_pattern() {
  return std::make_unique<ScannerPattern<Words>>();
}

}  // namespace qianli::text
