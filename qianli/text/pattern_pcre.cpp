// Regular expressions without a scanner, through PCRE2. tokenizer.json files are written for
// Oniguruma (Ruby syntax): what the two read alike is passed on, \s \S \w \W and \h are spelled
// out, and what means something else is refused.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/core.h>
#include <pcre2.h>
#include <time.h>

#include <algorithm>
#include <atomic>

#include "qianli/base/error.h"
#include "qianli/text/pattern.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

constexpr size_t kMaxExpressionBytes = 1 << 16;
// A limit on the work of one match attempt, and on its memory in KiB: a regular expression that
// needs more is a trap, not a tokenizer.
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKib = 256 * 1024;
// The limit above holds for one place where a match may begin. Expressions that go far before they
// fail, at every place, are bounded by the processor time they take: ordinary ones need less than a
// microsecond a byte.
constexpr double kSecondsAtFirst = 0.5, kSecondsPerByte = 20e-6;
constexpr size_t kPlacesPerCall = 16;

constexpr std::string_view kSpaces =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNonSpaces =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
// \w: Alphabetic, M, Nd, Pc.
const std::string& words() {
  static const std::string members =
      R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})" +
      newer_characters("L") + newer_characters("M") + newer_characters("Nd");
  return members;
}

[[noreturn]] void refuse(const std::string& where, const std::string& problem) {
  throw DataError(
      "tokenizer",
      fmt::format("expected a regular expression that can be read at {}, got {}", where, problem));
}

// Rewrites an expression from Oniguruma's to PCRE2's syntax.
class Translator {
 public:
  Translator(const std::string& expression, const std::string& where)
      : in_(expression), where_(where) {}

  std::string run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        escape();
      } else if (in_class_ > 0) {
        class_character(c);
      } else {
        plain_character(c);
      }
    }
    return std::move(out_);
  }

 private:
  void put(std::string_view text) { out_ += text; }
  void take() { out_ += in_[at_++]; }

  void escape() {
    if (at_ + 1 >= in_.size()) refuse(where_, "a backslash at the end");
    const char c = in_[at_ + 1];
    at_ += 2;
    if (c == 's') return spelled_out(kSpaces, false);
    if (c == 'S') return in_class_ > 0 ? put(kNonSpaces) : spelled_out(kSpaces, true);
    if (c == 'w') return spelled_out(words(), false);
    if (c == 'W' && in_class_ == 0) return spelled_out(words(), true);
    if (c == 'd') return spelled_out("\\p{Nd}" + newer_characters("Nd"), false);
    if (c == 'h') return spelled_out("0-9a-fA-F", false);
    if (c == 'u') return code_point();
    // Letters and digits whose meaning is the same in both; signs stand for themselves.
    constexpr std::string_view kSame = "pPDnrtfvaexA";
    const bool sign = !((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'));
    if (!sign && kSame.find(c) == std::string_view::npos) {
      refuse(where_, fmt::format("\\{}, which has no counterpart", c));
    }
    if (c == 'v') return put("\\x{b}");
    out_ += '\\';
    out_ += c;
    if ((c == 'p' || c == 'P') && script()) return;
    if ((c == 'p' || c == 'P') && category(c == 'P')) return;
    // \p{L} and \x{4e00}: the braces are no repetition.
    if ((c == 'p' || c == 'P' || c == 'x') && at_ < in_.size() && in_[at_] == '{') {
      while (at_ < in_.size() && in_[at_] != '}') take();
      if (at_ < in_.size()) take();
    }
  }

  // {Han} behind \p: without "sc:" PCRE2 takes characters that other scripts share, too.
  bool script() {
    for (const std::string_view name :
         {"Han",      "Hiragana", "Katakana", "Hangul",   "Bopomofo",   "Latin",     "Greek",
          "Cyrillic", "Armenian", "Hebrew",   "Arabic",   "Devanagari", "Bengali",   "Tamil",
          "Thai",     "Lao",      "Tibetan",  "Georgian", "Khmer",      "Mongolian", "Myanmar"}) {
      if (in_.compare(at_, name.size() + 2, fmt::format("{{{}}}", name)) != 0) continue;
      put(fmt::format("{{sc:{}}}", name));
      at_ += name.size() + 2;
      return true;
    }
    return false;
  }

  // {L} or {Lu} behind \p: PCRE2's tables may end with Unicode 14, the reference's with 16.
  bool category(bool negated) {
    const size_t end = in_.find('}', at_);
    if (end == in_.npos || in_[at_] != '{' || end - at_ < 2 || end - at_ > 3) return false;
    const std::string name = in_.substr(at_ + 1, end - at_ - 1);
    const std::string newer = newer_characters(name);
    if (newer.empty() || (negated && in_class_ > 0)) return false;
    out_.resize(out_.size() - 2);
    at_ = end + 1;
    spelled_out("\\p{" + name + "}" + newer, negated);
    return true;
  }

  void spelled_out(std::string_view members, bool negated) {
    if (in_class_ > 0) return put(members);
    put(negated ? "[^" : "[");
    put(members);
    put("]");
  }

  // \uHHHH
  void code_point() {
    const std::string digits = in_.substr(at_, 4);
    if (digits.size() != 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos) {
      refuse(where_, "\\u without four hexadecimal digits");
    }
    at_ += 4;
    put("\\x{" + digits + "}");
  }

  void class_character(char c) {
    if (c == '[' && in_.compare(at_, 2, "[:") == 0) refuse(where_, "a POSIX class");
    if (c == '[') refuse(where_, "a class within a class");
    if (in_.compare(at_, 3, "&&[") == 0) return intersection();
    if (in_.compare(at_, 2, "&&") == 0) refuse(where_, "an intersection of classes (&&)");
    if (c == ']') --in_class_;
    take();
  }

  // [A&&[^B]] and [A&&[B]] become (?:(?![B])[A]) and (?:(?=[B])[A]).
  void intersection() {
    at_ += 3;
    const bool negated = at_ < in_.size() && in_[at_] == '^';
    if (negated) ++at_;
    const std::string first = out_.substr(class_begin_);
    out_.resize(class_begin_);
    put(negated ? "(?:(?![" : "(?:(?=[");
    while (at_ < in_.size() && in_[at_] != ']') {
      if (in_[at_] == '[' || in_[at_] == '&') refuse(where_, "a class within such a class");
      if (in_[at_] == '\\') {
        escape();
      } else {
        take();
      }
    }
    if (in_.compare(at_, 2, "]]") != 0) refuse(where_, "an intersection of classes (&&)");
    at_ += 2;
    put("])");
    put(first);
    put("])");
    --in_class_;
  }

  void plain_character(char c) {
    if (c == '^' || c == '$') refuse(where_, fmt::format("the line anchor {}", c));
    if (c == '[') {
      ++in_class_;
      class_begin_ = out_.size();
      take();
      if (at_ < in_.size() && in_[at_] == '^') take();
      if (at_ < in_.size() && in_[at_] == ']') refuse(where_, "a class that begins with ]");
      return;
    }
    if (c == '(' && in_.compare(at_, 2, "(?") == 0) return group();
    if (c == '(' && in_.compare(at_, 2, "(*") == 0) refuse(where_, "a (* verb");
    if (c == '{' && in_.compare(at_, 2, "{,") == 0) refuse(where_, "a repetition {,n}");
    if (c == '}' && in_.compare(at_, 2, "}+") == 0) refuse(where_, "a repetition {n}+");
    take();
  }

  // Non-capturing and atomic groups, looking around, and the option i; other options differ.
  void group() {
    for (const std::string_view start :
         {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:", "(?i)"}) {
      // (?i) in the middle reaches differently far in the two.
      if (start == "(?i)" && at_ > 0) continue;
      if (in_.compare(at_, start.size(), start) == 0) {
        put(start);
        at_ += start.size();
        return;
      }
    }
    refuse(where_, fmt::format("the group '{}'", in_.substr(at_, 4)));
  }

  const std::string& in_;
  const std::string& where_;
  std::string out_;
  size_t at_ = 0;
  int in_class_ = 0;
  size_t class_begin_ = 0;  // in out_
};

std::string pcre_message(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

class PcrePattern : public Pattern {
 public:
  PcrePattern(const std::string& expression, const std::string& where)
      : where_(where), limits_(pcre2_match_context_create(nullptr)) {
    if (expression.size() > kMaxExpressionBytes) refuse(where, "one of more than 64 KiB");
    const std::string translated = Translator(expression, where).run();
    int error = 0;
    PCRE2_SIZE offset = 0;
    const std::unique_ptr<pcre2_compile_context, Free> context(
        pcre2_compile_context_create(nullptr));
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    code_.reset(
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT,
                      &error, &offset, context.get()));
    if (!code_) refuse(where, fmt::format("'{}' ({})", expression, pcre_message(error)));
    pcre2_set_match_limit(limits_.get(), kMatchLimit);
    pcre2_set_heap_limit(limits_.get(), kHeapLimitKib);
  }

  size_t find(std::string_view text, size_t from, std::span<Match> out) const override {
    const std::unique_ptr<pcre2_match_data, Free> data(pcre2_match_data_create(1, nullptr));
    const std::unique_ptr<pcre2_match_context, Free> limits(
        pcre2_match_context_copy(limits_.get()));
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    const size_t first = from;
    const int64_t start = thread_nanoseconds();
    size_t count = 0;
    for (int calls = 1; count < out.size() && from < text.size(); ++calls) {
      pcre2_set_offset_limit(limits.get(), from + kPlacesPerCall - 1);
      const int found = pcre2_match(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK,
                                    data.get(), limits.get());
      if (found == PCRE2_ERROR_NOMATCH) {
        from = std::min(from + kPlacesPerCall, text.size());
        while (from < text.size() && is_continuation(text[from])) ++from;
      } else if (found < 0) {
        refuse_match(pcre_message(found));
      } else {
        const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
        if (ends[0] < ends[1]) out[count++] = {ends[0], ends[1]};
        from = ends[1];
        // Behind an empty match the search goes on with the next character.
        if (ends[0] == ends[1] && from < text.size()) from += decode_char(&text[from]).size;
      }
      if (calls % 16 == 0) check_time(thread_nanoseconds() - start, from - first);
    }
    nanoseconds_ += thread_nanoseconds() - start;
    bytes_ += static_cast<int64_t>(from - first);
    check_time(0, 0);
    return count;
  }

 private:
  struct Free {
    void operator()(pcre2_code* p) const { pcre2_code_free(p); }
    void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
    void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
    void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  };
  [[noreturn]] void refuse_match(const std::string& problem) const {
    throw DataError("tokenizer",
                    fmt::format("expected the regular expression at {} to match within "
                                "its limits, got: {}",
                                where_, problem));
  }
  // Time and bytes of this search, and of all before it.
  void check_time(int64_t nanoseconds, size_t bytes) const {
    const double allowed = kSecondsAtFirst + kSecondsPerByte * (static_cast<double>(bytes_) +
                                                                static_cast<double>(bytes));
    if (1e-9 * static_cast<double>(nanoseconds_ + nanoseconds) > allowed) {
      refuse_match("far too much work for the length of the text");
    }
  }
  static int64_t thread_nanoseconds() {
    timespec time = {};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return int64_t{1'000'000'000} * time.tv_sec + time.tv_nsec;
  }

  std::string where_;
  std::unique_ptr<pcre2_code, Free> code_;
  std::unique_ptr<pcre2_match_context, Free> limits_;
  mutable std::atomic<int64_t> nanoseconds_ = 0, bytes_ = 0;
};

}  // namespace

std::unique_ptr<const Pattern> make_pcre_pattern(const std::string& expression,
                                                 const std::string& where) {
  return std::make_unique<PcrePattern>(expression, where);
}

}  // namespace qianli::text
