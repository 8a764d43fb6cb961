// What the two kinds of format strings share: a conversion's settings and how it writes a value.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "qianli/text/jinja/value.h"

namespace qianli::text::jinja {

struct FormatSpec {
  std::string fill = " ";
  char align = 0, sign = 0, type = 0;
  bool alternate = false, zero = false, comma = false;
  int64_t width = 0;
  std::optional<int64_t> precision;
};

// A template chooses both: bounded, so that a number's text stays short.
inline constexpr int64_t kMaxWidth = 1 << 20, kMaxPrecision = 400;

bool is_real_format(char type);  // e, f, g, %, ...
std::string format_number(Meter& meter, const Value& value, const FormatSpec& spec);
// Cut to the precision, then padded; `align` where the spec names none.
std::string format_text(Meter& meter, const std::string& text, const FormatSpec& spec, char align);
// Digits at text[at], moved past. Throws above `limit`.
int64_t read_format_number(std::string_view text, size_t& at, int64_t limit);

}  // namespace qianli::text::jinja
