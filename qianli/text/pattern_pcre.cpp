// Regular expressions without a scanner, through PCRE2.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/core.h>
#include <pcre2.h>
#include <time.h>

#include <algorithm>
#include <atomic>

#include "qianli/base/error.h"
#include "qianli/text/regex_translator.h"
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
// Looking ahead for a character that a match may begin with would, at every call, go far beyond the
// places of the call: quadratic time where there are few.
constexpr uint32_t kCompileOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C |
                                     PCRE2_USE_OFFSET_LIMIT | PCRE2_NO_START_OPTIMIZE;

std::string pcre_message(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

class PcrePattern : public Pattern {
 public:
  PcrePattern(const std::string& expression, RegexSyntax syntax, const std::string& where)
      : where_(where), limits_(pcre2_match_context_create(nullptr)) {
    if (expression.size() > kMaxExpressionBytes) refuse_regex(where, "one of more than 64 KiB");
    const std::string translated = translate_regex(expression, syntax, where);
    int error = 0;
    PCRE2_SIZE offset = 0;
    const std::unique_ptr<pcre2_compile_context, Free> context(
        pcre2_compile_context_create(nullptr));
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              kCompileOptions, &error, &offset, context.get()));
    if (!code_) refuse_regex(where, fmt::format("'{}' ({})", expression, pcre_message(error)));
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
    // Where the last match ended: no empty match follows there.
    size_t last_end = from > 0 ? from : text.npos;
    for (int calls = 1; count < out.size() && from <= text.size() && !text.empty(); ++calls) {
      pcre2_set_offset_limit(limits.get(), from + kPlacesPerCall - 1);
      const int found = pcre2_match(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK,
                                    data.get(), limits.get());
      if (found == PCRE2_ERROR_NOMATCH) {
        from += kPlacesPerCall;
        while (from < text.size() && is_continuation(text[from])) ++from;
      } else if (found < 0) {
        refuse_match(pcre_message(found));
      } else {
        const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
        from = ends[1];
        if (ends[0] < ends[1] || ends[0] != last_end) {
          out[count++] = {ends[0], ends[1]};
          last_end = ends[1];
        } else {
          from += from < text.size() ? decode_char(&text[from]).size : 1;
        }
      }
      if (calls % 16 == 0) check_time(thread_nanoseconds() - start, from - first);
    }
    nanoseconds_ += thread_nanoseconds() - start;
    bytes_ += static_cast<int64_t>(std::min(from, text.size()) - first);
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

std::unique_ptr<const Pattern> make_pcre_pattern(const std::string& expression, RegexSyntax syntax,
                                                 const std::string& where) {
  return std::make_unique<PcrePattern>(expression, syntax, where);
}

}  // namespace qianli::text
