// Scanners for the split expressions of the well-known tokenizers. Each function below is one
// expression, alternative by alternative; where an alternative needs backtracking the comment says
// what it comes to.
#include <algorithm>
#include <iterator>
#include <utility>

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

// Script Han, Unicode 16.
bool is_han(char32_t c) {
  constexpr std::pair<char32_t, char32_t> kRanges[] = {
      {0x2E80, 0x2E99},   {0x2E9B, 0x2EF3},   {0x2F00, 0x2FD5},   {0x3005, 0x3005},
      {0x3007, 0x3007},   {0x3021, 0x3029},   {0x3038, 0x303B},   {0x3400, 0x4DBF},
      {0x4E00, 0x9FFF},   {0xF900, 0xFA6D},   {0xFA70, 0xFAD9},   {0x16FE2, 0x16FE3},
      {0x16FF0, 0x16FF1}, {0x20000, 0x2A6DF}, {0x2A700, 0x2B739}, {0x2B740, 0x2B81D},
      {0x2B820, 0x2CEA1}, {0x2CEB0, 0x2EBE0}, {0x2EBF0, 0x2EE5D}, {0x2F800, 0x2FA1D},
      {0x30000, 0x3134A}, {0x31350, 0x323AF}};
  if (c < kRanges[0].first) return false;
  return std::any_of(std::begin(kRanges), std::end(kRanges),
                     [c](const auto& range) { return c >= range.first && c <= range.second; });
}

// o200k, and Kimi's, which takes runs of Han first and lets words hold none.
template <bool kHanApart>
struct O200k {
  static constexpr uint16_t kUpper = kUpperLetter | kOtherLetter | kMark;
  static constexpr uint16_t kLower = kLowerLetter | kOtherLetter | kMark;

  static bool next(const Text& text, size_t begin, size_t& end) {
    const Char c = text.at(begin);
    if (kHanApart && is_han(c.code)) {
      end = begin + c.size;
      for (Char d = text.at(end); is_han(d.code); d = text.at(end)) end += d.size;
      return true;
    }
    const bool may_lead = !c.is(kNewline | kLetter | kNumber);
    if (match_word(text, begin, may_lead ? begin + c.size : begin, end)) {
      if (end < text.size() && text.byte(end) == '\'') {
        end = end_of_contraction_any_case(text, end);
      }
      return true;
    }
    if (c.is(kNumber)) {
      end = begin;
      for (int i = 0; i < 3 && text.at(end).is(kNumber); ++i) end += text.at(end).size;
      return true;
    }
    const Char second = text.at(begin + c.size);
    const bool spaced = c.code == ' ' && second.size > 0 && !second.is(kSpaceLetterNumber);
    if (spaced || !c.is(kSpace)) {
      end = end_of_lines(text, text.end_of_run(begin + c.size, kSpaceLetterNumber, false));
      return true;
    }
    end = end_of_spaces_or_newlines(text, begin);
    return true;
  }

 private:
  static bool is(const Char& c, uint16_t mask) {
    return c.is(mask) && !(kHanApart && is_han(c.code));
  }
  // X?[U]*[L]+ or, where that fails, X?[U]+[L]*; [begin, body) is X.
  static bool match_word(const Text& text, size_t begin, size_t body, size_t& end) {
    size_t at = body;
    end = body;  // behind the last character of the run of U that is in L, too
    Char c = text.at(at);
    for (; is(c, kUpper); c = text.at(at)) {
      at += c.size;
      if (c.is(kLower)) end = at;
    }
    if (is(c, kLower)) {
      for (; is(c, kLower); c = text.at(at)) at += c.size;
      end = at;
    }
    if (end > body) return true;
    // A mark that does not lead is a word itself.
    if (body > begin && is(text.at(begin), kMark)) {
      end = body;
      return true;
    }
    end = at;
    return end > body;
  }
  // [\r\n/]* for o200k, [\r\n]* for Kimi's.
  static size_t end_of_lines(const Text& text, size_t at) {
    while (at < text.size() && (text.byte(at) == '\r' || text.byte(at) == '\n' ||
                                (!kHanApart && text.byte(at) == '/'))) {
      ++at;
    }
    return at;
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
  if (expression == kO200kRegex) return std::make_unique<ScannerPattern<O200k<false>>>();
  if (expression == kKimiRegex) return std::make_unique<ScannerPattern<O200k<true>>>();
  if (expression == kDeepSeekRegex) return std::make_unique<ScannerPattern<DeepSeek>>();
  if (expression == "\\p{N}{1,3}") return std::make_unique<ScannerPattern<Numbers<3>>>();
  if (expression == "\\p{N}") return std::make_unique<ScannerPattern<Numbers<1>>>();
  if (expression == "[一-龥\u3040-ゟ゠-ヿ]+") return std::make_unique<ScannerPattern<HanKana>>();
  return nullptr;
}

std::unique_ptr<const Pattern> make_regex_pattern(const std::string& expression, RegexSyntax syntax,
                                                  const std::string& where) {
  // The scanner of cl100k reads {1,3}+ and $ as fancy-regex does.
  const bool other = expression == kCl100kRegex && syntax != RegexSyntax::kFancyRegex;
  auto known = other ? nullptr : make_known_pattern(expression);
  return known ? std::move(known) : make_pcre_pattern(expression, syntax, where);
}

}  // namespace qianli::text
