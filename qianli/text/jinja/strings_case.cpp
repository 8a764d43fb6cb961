// Upper, lower and title case, and the classes of characters behind str.isupper and the like.
#include <utf8proc.h>

#include <algorithm>

#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {
namespace {

struct SpecialCase {
  char32_t character;
  const char32_t* upper;
  const char32_t* title;
};
constexpr SpecialCase kSpecialCases[] = {
#include "qianli/text/jinja/case_data.inc"
};

const SpecialCase* special_case(char32_t c) {
  if (c < 0x80) return nullptr;
  const auto* found = std::lower_bound(
      std::begin(kSpecialCases), std::end(kSpecialCases), c,
      [](const SpecialCase& entry, char32_t value) { return entry.character < value; });
  return found != std::end(kSpecialCases) && found->character == c ? found : nullptr;
}

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

char32_t simple_lower(char32_t c) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

void append_upper(std::u32string& out, char32_t c) {
  if (const SpecialCase* special = special_case(c))
    out += special->upper;
  else
    out += static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
}

void append_title(std::u32string& out, char32_t c) {
  if (const SpecialCase* special = special_case(c))
    out += special->title;
  else
    out += static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c)));
}

bool is_upper(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LU; }
bool is_lower(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA; }
bool is_title(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LT; }
bool is_cased(char32_t c) { return is_upper(c) || is_lower(c) || is_title(c); }

bool is_case_ignorable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      break;
  }
  return std::u32string_view(U"'.:\u00B7\u2018\u2019\u2024\u2027").find(c) !=
         std::u32string_view::npos;
}

// The sigma at the end of a word has a form of its own (SpecialCasing's Final_Sigma).
bool is_final_sigma(std::u32string_view text, size_t at) {
  size_t before = at;
  while (before > 0 && is_case_ignorable(text[before - 1])) --before;
  if (before == 0 || !is_cased(text[before - 1])) return false;
  size_t after = at + 1;
  while (after < text.size() && is_case_ignorable(text[after])) ++after;
  return after == text.size() || !is_cased(text[after]);
}

void append_lower(std::u32string& out, std::u32string_view text, size_t at) {
  const char32_t c = text[at];
  if (c == 0x3A3)
    out += is_final_sigma(text, at) ? U'\u03C2' : U'\u03C3';
  else if (c == 0x130)
    out += U"i\u0307";
  else
    out += simple_lower(c);
}

bool is_letter(char32_t c) {
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}
bool is_decimal(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }
bool is_digit(char32_t c) {
  return is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || (c >= 0x2070 && c <= 0x2079) ||
         (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468);
}
bool is_numeric(char32_t c) {
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO;
}

template <class Test>
bool all(std::u32string_view text, Test test) {
  return !text.empty() && std::all_of(text.begin(), text.end(), test);
}

// Some character has a case, and none has the other one.
template <class Wanted, class Other>
bool cased(std::u32string_view text, Wanted wanted, Other other) {
  return std::any_of(text.begin(), text.end(), wanted) &&
         std::none_of(text.begin(), text.end(), other);
}

bool is_title_text(std::u32string_view text) {
  bool any = false, inside = false;
  for (const char32_t c : text) {
    if (is_upper(c) || is_title(c)) {
      if (inside) return false;
      any = inside = true;
    } else if (is_lower(c)) {
      if (!inside) return false;
    } else {
      inside = false;
    }
  }
  return any;
}

}  // namespace

std::string upper(std::string_view text) {
  std::u32string out;
  for (const char32_t c : to_characters(text)) append_upper(out, c);
  return from_characters(out);
}

std::string lower(std::string_view text) {
  const std::u32string characters = to_characters(text);
  std::u32string out;
  for (size_t i = 0; i < characters.size(); ++i) append_lower(out, characters, i);
  return from_characters(out);
}

std::string capitalize(std::string_view text) {
  const std::u32string characters = to_characters(text);
  std::u32string out;
  for (size_t i = 0; i < characters.size(); ++i) {
    if (i == 0)
      append_title(out, characters[i]);
    else
      append_lower(out, characters, i);
  }
  return from_characters(out);
}

std::string title(std::string_view text) {
  const std::u32string characters = to_characters(text);
  std::u32string out;
  bool inside = false;
  for (size_t i = 0; i < characters.size(); ++i) {
    if (inside)
      append_lower(out, characters, i);
    else
      append_title(out, characters[i]);
    inside = is_cased(characters[i]);
  }
  return from_characters(out);
}

std::string title_filter(std::string_view text) {
  const auto parts_words = [](char32_t c) {
    return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  const std::u32string characters = to_characters(text);
  std::string out;
  for (size_t begin = 0; begin < characters.size();) {
    // A run of separators or a run of other characters; a final sigma ends with its run.
    size_t end = begin + 1;
    const bool separators = parts_words(characters[begin]);
    while (end < characters.size() && parts_words(characters[end]) == separators) ++end;
    const std::u32string_view run(characters.data() + begin, end - begin);
    out += upper(from_characters(run.substr(0, 1)));
    out += lower(from_characters(run.substr(1)));
    begin = end;
  }
  return out;
}

std::string swap_case(std::string_view text) {
  const std::u32string characters = to_characters(text);
  std::u32string out;
  for (size_t i = 0; i < characters.size(); ++i) {
    if (is_upper(characters[i]))
      append_lower(out, characters, i);
    else if (is_lower(characters[i]))
      append_upper(out, characters[i]);
    else
      out += characters[i];
  }
  return from_characters(out);
}

std::string case_fold(std::string_view text) {
  utf8proc_uint8_t* folded = nullptr;
  const auto size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &folded, UTF8PROC_CASEFOLD);
  if (size < 0) return std::string(text);
  std::string result(reinterpret_cast<const char*>(folded), static_cast<size_t>(size));
  std::free(folded);
  return result;
}

bool is_identifier_start(char32_t c) {
  return c == '_' || is_letter(c) || category(c) == UTF8PROC_CATEGORY_NL;
}

bool is_identifier_part(char32_t c) {
  const auto kind = category(c);
  return is_identifier_start(c) || kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_MN ||
         kind == UTF8PROC_CATEGORY_MC || kind == UTF8PROC_CATEGORY_PC;
}

size_t count_words(std::string_view text) {
  size_t words = 0;
  bool inside = false;
  for (const char32_t c : to_characters(text)) {
    const bool word = is_letter(c) || is_numeric(c) || c == '_';
    if (word && !inside) ++words;
    inside = word;
  }
  return words;
}

std::optional<bool> classify(std::string_view method, std::string_view text) {
  const std::u32string c = to_characters(text);
  if (method == "isupper") {
    return cased(c, is_upper, [](char32_t x) { return is_lower(x) || is_title(x); });
  }
  if (method == "islower") {
    return cased(c, is_lower, [](char32_t x) { return is_upper(x) || is_title(x); });
  }
  if (method == "istitle") return is_title_text(c);
  if (method == "isalpha") return all(c, is_letter);
  if (method == "isdecimal") return all(c, is_decimal);
  if (method == "isdigit") return all(c, is_digit);
  if (method == "isnumeric") return all(c, is_numeric);
  if (method == "isspace") return all(c, is_space);
  if (method == "isascii") {
    return std::all_of(c.begin(), c.end(), [](char32_t x) { return x < 0x80; });
  }
  if (method == "isalnum") return all(c, [](char32_t x) { return is_letter(x) || is_numeric(x); });
  if (method == "isidentifier") {
    return !c.empty() && is_identifier_start(c[0]) && all(c, is_identifier_part);
  }
  return std::nullopt;
}

}  // namespace qianli::text::jinja
