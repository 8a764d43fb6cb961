// Scanners for the split expressions of the well-known tokenizers. Each function below is one
// expression, alternative by alternative; where an alternative needs backtracking the comment says
// what it comes to.
#include "qianli/text/pattern.h"
#include "qianli/text/scan.h"

namespace qianli::text {

const char kGpt2Regex[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const char kLlama3Regex[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char kQwen2Regex[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// The published file holds real CR and LF inside the classes.
const char kDeepSeekRegex[] =
    "[!\"#$%&'()*+,\\-./"
    ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
const char kCl100kRegex[] =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s)";
const char kO200kRegex[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char kKimiRegex[] =
    R"([\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace {

// \s+(?!\S)|\s+ at white space: the run without its last character when something other than the
// end of the text follows, unless that would leave nothing.
size_t end_of_spaces(const Text& text, size_t begin) {
  size_t at = begin, last = begin;
  for (Char c = text.at(at); c.is(kSpace); c = text.at(at)) {
    last = at;
    at += c.size;
  }
  if (at == text.size() || last == begin) return at;
  return last;
}

// \s*[\r\n]+|\s+(?!\S)|\s+ at white space: the first comes to "up to the last newline of the run".
// `all_at_end`: \s++$ goes first.
size_t end_of_spaces_or_newlines(const Text& text, size_t begin, bool all_at_end = false) {
  size_t at = begin, last = begin, after_newline = begin;
  for (Char c = text.at(at); c.is(kSpace); c = text.at(at)) {
    last = at;
    at += c.size;
    if (c.is(kNewline)) after_newline = at;
  }
  if (all_at_end && at == text.size()) return at;
  if (after_newline > begin) return after_newline;
  if (at == text.size() || last == begin) return at;
  return last;
}

// 's|'t|'re|'ve|'m|'ll|'d at an apostrophe: the end of the match, or `begin`.
size_t end_of_contraction(const Text& text, size_t begin) {
  const size_t left = text.size() - begin;
  if (left < 2) return begin;
  const char a = text.byte(begin + 1);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return begin + 2;
  if (left < 3) return begin;
  const char b = text.byte(begin + 2);
  const bool two = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
  return two ? begin + 3 : begin;
}

// The same under (?i: ; U+017F, long s, folds to s.
size_t end_of_contraction_any_case(const Text& text, size_t begin) {
  const size_t left = text.size() - begin;
  const auto lower = [&](size_t i) { return static_cast<char>(text.byte(i) | 0x20); };
  if (left < 2) return begin;
  const char a = lower(begin + 1);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return begin + 2;
  if (left < 3) return begin;
  if (text.byte(begin + 1) == '\xC5' && text.byte(begin + 2) == '\xBF') return begin + 3;
  const char b = lower(begin + 2);
  const bool two = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
  return two ? begin + 3 : begin;
}

constexpr uint16_t kSpaceLetterNumber = kSpace | kLetter | kNumber;

struct Gpt2 {
  // Every character belongs to some match.
  static bool next(const Text& text, size_t begin, size_t& end) {
    const Char c = text.at(begin);
    if (c.code == '\'' && (end = end_of_contraction(text, begin)) > begin) return true;
    const size_t body = c.code == ' ' ? begin + 1 : begin;
    const Char first = body == begin ? c : text.at(body);
    if (first.size > 0 && !first.is(kSpace)) {
      const uint16_t kind = first.classes & (kLetter | kNumber);
      if (kind & kLetter) {
        end = text.end_of_run(body + first.size, kLetter);
      } else if (kind & kNumber) {
        end = text.end_of_run(body + first.size, kNumber);
      } else {
        end = text.end_of_run(body + first.size, kSpaceLetterNumber, false);
      }
      return true;
    }
    end = end_of_spaces(text, begin);
    return true;
  }
};

// Llama 3 (digits in threes), Qwen2 (single digits) and cl100k.
template <int kDigits, bool kAllSpacesAtEnd = false>
struct Llama3 {
  static bool next(const Text& text, size_t begin, size_t& end) {
    const Char c = text.at(begin);
    if (c.is(kLetter)) {
      end = text.end_of_run(begin + c.size, kLetter);
      return true;
    }
    if (c.is(kNumber)) {
      end = begin + c.size;
      for (int i = 1; i < kDigits; ++i) {
        const Char d = text.at(end);
        if (!d.is(kNumber)) break;
        end += d.size;
      }
      return true;
    }
    if (c.code == '\'' && (end = end_of_contraction_any_case(text, begin)) > begin) return true;
    const Char second = text.at(begin + c.size);
    if (!c.is(kNewline) && second.is(kLetter)) {
      end = text.end_of_run(begin + c.size + second.size, kLetter);
      return true;
    }
    const bool spaced = c.code == ' ' && second.size > 0 && !second.is(kSpaceLetterNumber);
    if (spaced || !c.is(kSpace)) {
      end = text.end_of_newlines(text.end_of_run(begin + c.size, kSpaceLetterNumber, false));
      return true;
    }
    end = end_of_spaces_or_newlines(text, begin, kAllSpacesAtEnd);
    return true;
  }
};

bool is_ascii_letter(char32_t c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }

struct DeepSeek {
  // False: no match begins at `begin` (a digit, a control character, ...).
  static bool next(const Text& text, size_t begin, size_t& end) {
    constexpr uint16_t kLetterMark = kLetter | kMark, kSign = kPunctuation | kSymbol;
    const Char c = text.at(begin);
    const Char second = text.at(begin + c.size);
    if (c.code < 0x80 && c.is(kSign) && is_ascii_letter(second.code)) {
      end = begin + 1;
      while (end < text.size() && is_ascii_letter(static_cast<unsigned char>(text.byte(end))))
        ++end;
      return true;
    }
    // A mark may stand for the optional first character or be part of the run: the same match.
    if (c.is(kLetterMark) || (!c.is(kSign | kNewline) && second.is(kLetterMark))) {
      end = text.end_of_run(begin + c.size, kLetterMark);
      return true;
    }
    if (c.is(kSign) || (c.code == ' ' && second.is(kSign))) {
      end = text.end_of_newlines(text.end_of_run(begin + c.size, kSign));
      return true;
    }
    if (!c.is(kSpace)) return false;
    end = end_of_spaces_or_newlines(text, begin);
    return true;
  }
};

// \p{N}{1,3} and \p{N}
template <int kMost>
struct Numbers {
  static bool next(const Text& text, size_t begin, size_t& end) {
    end = begin;
    for (int i = 0; i < kMost; ++i) {
      const Char c = text.at(end);
      if (!c.is(kNumber)) break;
      end += c.size;
    }
    return end > begin;
  }
};

// [一-龥぀-ゟ゠-ヿ]+ : U+4E00 to U+9FA5, U+3040 to U+30FF
struct HanKana {
  static bool next(const Text& text, size_t begin, size_t& end) {
    for (end = begin;;) {
      const Char c = text.at(end);
      const bool in =
          (c.code >= 0x4E00 && c.code <= 0x9FA5) || (c.code >= 0x3040 && c.code <= 0x30FF);
      if (!in) return end > begin;
      end += c.size;
    }
  }
};

}  // namespace

std::unique_ptr<const Pattern> make_known_pattern(std::string_view expression) {
  if (expression == kGpt2Regex) return std::make_unique<ScannerPattern<Gpt2>>();
  if (expression == kLlama3Regex) return std::make_unique<ScannerPattern<Llama3<3>>>();
  if (expression == kQwen2Regex) return std::make_unique<ScannerPattern<Llama3<1>>>();
  if (expression == kCl100kRegex) return std::make_unique<ScannerPattern<Llama3<3, true>>>();
  if (expression == kDeepSeekRegex) return std::make_unique<ScannerPattern<DeepSeek>>();
  if (expression == "\\p{N}{1,3}") return std::make_unique<ScannerPattern<Numbers<3>>>();
  if (expression == "\\p{N}") return std::make_unique<ScannerPattern<Numbers<1>>>();
  if (expression == "[一-龥\u3040-ゟ゠-ヿ]+") return std::make_unique<ScannerPattern<HanKana>>();
  return nullptr;
}

std::unique_ptr<const Pattern> make_regex_pattern(const std::string& expression,
                                                  const std::string& where) {
  auto known = make_known_pattern(expression);
  return known ? std::move(known) : make_pcre_pattern(expression, where);
}

}  // namespace qianli::text
