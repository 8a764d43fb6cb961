#include "qianli/text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "qianli/base/error.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

struct Range {
  char32_t first, last;
};

// Characters of Unicode 10 to 15 that utf8proc would reorder, compose or decompose. The reference
// library's tables end at Unicode 9, where these are unassigned: starters that nothing composes
// with, so that text may be normalised in parts around them.
// U+11A7 is there for another reason: it never composes, but utf8proc 2.8 takes it for a Hangul
// final.
constexpr Range kNewerThanUnicode9[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x11A7, 0x11A7},
    {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0x32FF, 0x32FF},
    {0xA7F2, 0xA7F4},   {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x10785},
    {0x10787, 0x107B0}, {0x107B2, 0x107BA}, {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC},
    {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070},
    {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930},
    {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1},
    {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

bool is_newer(char32_t c) {
  if (c < kNewerThanUnicode9[0].first) return false;
  const auto* range = std::lower_bound(std::begin(kNewerThanUnicode9), std::end(kNewerThanUnicode9),
                                       c, [](const Range& r, char32_t x) { return r.last < x; });
  return range != std::end(kNewerThanUnicode9) && range->first <= c;
}

int utf8proc_options(UnicodeForm form) {
  switch (form) {
    case UnicodeForm::kNfc:
      return UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    case UnicodeForm::kNfd:
      return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    case UnicodeForm::kNfkc:
      return UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT;
    default:
      return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT;
  }
}

void append_normalized(std::string& out, std::string_view part, UnicodeForm form) {
  if (part.empty()) return;
  utf8proc_uint8_t* result = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(part.data()),
                                 static_cast<utf8proc_ssize_t>(part.size()), &result,
                                 static_cast<utf8proc_option_t>(utf8proc_options(form)));
  if (size < 0) {
    throw DataError("tokenizer", std::string("expected text that can be normalised, got: ") +
                                     utf8proc_errmsg(size));
  }
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, &std::free);
  out.append(reinterpret_cast<const char*>(result), static_cast<size_t>(size));
}

// Leaves every text that holds it in NFC unchanged around it: ccc 0, nothing composes with what
// stands before it, no other canonical form. A few blocks that cover most writing.
bool is_nfc_inert(char32_t c) {
  return c < 0x300 || (c >= 0x370 && c < 0x374) || (c >= 0x400 && c < 0x483) ||
         (c >= 0x200B && c < 0x202A) || (c >= 0x3000 && c < 0x302A) ||
         (c >= 0x3041 && c < 0x3099) || (c >= 0x30A0 && c < 0x3100) ||
         (c >= 0x3400 && c < 0xA000) || (c >= 0xAC00 && c < 0xD7A4) ||
         (c >= 0xFE00 && c < 0xFE10) || (c >= 0xFF01 && c < 0xFFEF) ||
         (c >= 0x1F300 && c < 0x1FAFF);
}

class UnicodeNormalizer : public Normalizer {
 public:
  explicit UnicodeNormalizer(UnicodeForm form) : form_(form) {}
  bool may_change(std::string_view text) const override {
    return form_ != UnicodeForm::kNfc || !is_surely_nfc(text);
  }
  void apply(std::string& text) const override { normalize_unicode(text, form_); }

 private:
  UnicodeForm form_;
};

// Lower case of letters that Unicode 15.1 to 17 added; utf8proc may be as old as 15. The list
// stands with any utf8proc: ids must not depend on the machine.
struct LowerRange {
  char32_t first, last;
  int32_t distance;
};
constexpr LowerRange kLowerSince15_0[] = {
    {0x1C89, 0x1C89, 1},    {0xA7CB, 0xA7CB, -42343}, {0xA7CC, 0xA7CC, 1}, {0xA7CE, 0xA7CE, 1},
    {0xA7D2, 0xA7D2, 1},    {0xA7D4, 0xA7D4, 1},      {0xA7DA, 0xA7DA, 1}, {0xA7DC, 0xA7DC, -42561},
    {0x10D50, 0x10D65, 32}, {0x16EA0, 0x16EB8, 27}};

int32_t lower_of(char32_t c) {
  const auto code = static_cast<int32_t>(c);
  if (c >= kLowerSince15_0[0].first) {
    const auto* range =
        std::lower_bound(std::begin(kLowerSince15_0), std::end(kLowerSince15_0), c,
                         [](const LowerRange& r, char32_t x) { return r.last < x; });
    if (range != std::end(kLowerSince15_0) && range->first <= c) return code + range->distance;
  }
  return utf8proc_tolower(code);
}

class LowercaseNormalizer : public Normalizer {
 public:
  void apply(std::string& text) const override {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
      const Decoded c = decode_char(text.data() + at);
      at += c.size;
      if (c.code == 0x130) {  // the only letter whose lower case is two characters
        out += "i\u0307";
      } else {
        append_utf8(out, static_cast<char32_t>(lower_of(c.code)));
      }
    }
    text = std::move(out);
  }
};

class StripNormalizer : public Normalizer {
 public:
  StripNormalizer(bool left, bool right) : left_(left), right_(right) {}
  void apply(std::string& text) const override {
    const auto is_space = [](const Decoded& c) { return char_table().classes(c.code) & kSpace; };
    while (right_ && !text.empty() && is_space(decode_last_char(text))) {
      text.resize(text.size() - decode_last_char(text).size);
    }
    size_t begin = 0;
    while (left_ && begin < text.size() && is_space(decode_char(text.data() + begin))) {
      begin += decode_char(text.data() + begin).size;
    }
    text.erase(0, begin);
  }

 private:
  bool left_, right_;
};

class ReplaceNormalizer : public Normalizer {
 public:
  ReplaceNormalizer(std::unique_ptr<const Pattern> pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void apply(std::string& text) const override {
    std::string out;
    size_t done = 0;
    Match matches[64];
    for (size_t count = std::size(matches); count == std::size(matches);) {
      count = pattern_->find(text, done, matches);
      for (size_t i = 0; i < count; ++i) {
        out.append(text, done, matches[i].begin - done);
        out += content_;
        done = matches[i].end;
        check_growth(text.size(), out.size());
      }
    }
    out.append(text, done);
    text = std::move(out);
  }

 private:
  std::unique_ptr<const Pattern> pattern_;
  std::string content_;
};

class PrependNormalizer : public Normalizer {
 public:
  explicit PrependNormalizer(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(std::string& text) const override {
    if (!text.empty()) text.insert(0, prefix_);
  }

 private:
  std::string prefix_;
};

class NormalizerSequence : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::unique_ptr<const Normalizer>> steps)
      : steps_(std::move(steps)) {}
  bool may_change(std::string_view text) const override {
    return std::any_of(steps_.begin(), steps_.end(),
                       [&](const auto& step) { return step->may_change(text); });
  }
  void apply(std::string& text) const override {
    const size_t before = text.size();
    for (const auto& step : steps_) {
      step->apply(text);
      check_growth(before, text.size());
    }
  }

 private:
  std::vector<std::unique_ptr<const Normalizer>> steps_;
};

}  // namespace

void check_growth(size_t before, size_t after) {
  if (after <= 256 * before + (size_t{1} << 20)) return;
  throw DataError("tokenizer",
                  "expected a normalizer that keeps texts about as long, got one that "
                  "makes them more than 256 times as long");
}

bool is_surely_nfc(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const Decoded c = decode_char(text.data() + at);
    if (!is_nfc_inert(c.code)) return false;
    at += c.size;
  }
  return true;
}

bool normalize_unicode(std::string& text, UnicodeForm form) {
  std::string out;
  out.reserve(text.size());
  const std::string_view view = text;
  size_t done = 0;
  for (size_t at = 0; at < view.size();) {
    const Decoded c = decode_char(view.data() + at);
    if (is_newer(c.code)) {
      append_normalized(out, view.substr(done, at - done), form);
      out.append(view.substr(at, c.size));
      done = at + c.size;
    }
    at += c.size;
  }
  append_normalized(out, view.substr(done), form);
  const bool changed = out != text;
  text = std::move(out);
  return changed;
}

std::unique_ptr<const Normalizer> make_unicode_normalizer(UnicodeForm form) {
  return std::make_unique<UnicodeNormalizer>(form);
}
std::unique_ptr<const Normalizer> make_lowercase_normalizer() {
  return std::make_unique<LowercaseNormalizer>();
}
std::unique_ptr<const Normalizer> make_strip_normalizer(bool left, bool right) {
  return std::make_unique<StripNormalizer>(left, right);
}
std::unique_ptr<const Normalizer> make_replace_normalizer(std::unique_ptr<const Pattern> pattern,
                                                          std::string content) {
  return std::make_unique<ReplaceNormalizer>(std::move(pattern), std::move(content));
}
std::unique_ptr<const Normalizer> make_prepend_normalizer(std::string prefix) {
  return std::make_unique<PrependNormalizer>(std::move(prefix));
}
std::unique_ptr<const Normalizer> make_normalizer_sequence(
    std::vector<std::unique_ptr<const Normalizer>> steps) {
  return std::make_unique<NormalizerSequence>(std::move(steps));
}

}  // namespace qianli::text
