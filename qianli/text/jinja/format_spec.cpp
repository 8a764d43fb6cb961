#include "qianli/text/jinja/format_spec.h"

#include <fmt/format.h>

#include <cmath>

#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {
namespace {

std::string pad(Meter& meter, const std::string& text, const FormatSpec& spec, char default_align) {
  const auto size = static_cast<int64_t>(count_characters(text));
  if (size >= spec.width) return text;
  const int64_t total = spec.width - size;
  const char align = spec.align ? spec.align : default_align;
  const int64_t left = align == '<' ? 0 : align == '^' ? total / 2 : total;
  meter.expect(static_cast<size_t>(total) * spec.fill.size() + text.size());
  std::string out;
  const bool after_sign =
      align == '=' && !text.empty() && (text[0] == '-' || text[0] == '+' || text[0] == ' ');
  if (after_sign) out += text[0];
  for (int64_t i = 0; i < left; ++i) out += spec.fill;
  out += after_sign ? text.substr(1) : text;
  for (int64_t i = left; i < total; ++i) out += spec.fill;
  return out;
}

std::string with_sign(bool negative, char sign, std::string digits) {
  if (negative) return "-" + digits;
  return sign == '+' || sign == ' ' ? sign + digits : digits;
}

std::string grouped(std::string digits) {
  const size_t whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
  for (size_t at = whole; at > 3;) digits.insert(at -= 3, ",");
  return digits;
}

std::string integer_digits(int64_t value, const FormatSpec& spec) {
  const uint64_t size = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  const auto prefixed = [&](const char* prefix, std::string digits) {
    return (spec.alternate ? prefix : "") + digits;
  };
  switch (spec.type) {
    case 'x':
      return prefixed("0x", fmt::format("{:x}", size));
    case 'X':
      return prefixed("0X", fmt::format("{:X}", size));
    case 'o':
      return prefixed("0o", fmt::format("{:o}", size));
    case 'b':
      return prefixed("0b", fmt::format("{:b}", size));
    default:
      return spec.comma ? grouped(std::to_string(size)) : std::to_string(size);
  }
}

std::string real_digits(double value, const FormatSpec& spec) {
  const double size = std::abs(value);
  const bool percent = spec.type == '%';
  if (spec.type == 0 && !spec.precision) return real_text(size);
  const int precision = static_cast<int>(spec.precision.value_or(6));
  const char type = percent ? 'f' : spec.type == 0 || spec.type == 'n' ? 'g' : spec.type;
  const std::string format = std::string("%.*") + type;
  char buffer[1024];
  const int length =
      std::snprintf(buffer, sizeof(buffer), format.c_str(), precision, percent ? size * 100 : size);
  std::string digits(buffer, static_cast<size_t>(std::min<int>(length, sizeof(buffer) - 1)));
  if (spec.comma) digits = grouped(std::move(digits));
  return percent ? digits + "%" : digits;
}

}  // namespace

bool is_real_format(char type) {
  return type != 0 && std::string_view("eEfFgG%n").find(type) != std::string_view::npos;
}

std::string format_number(Meter& meter, const Value& value, const FormatSpec& spec) {
  FormatSpec used = spec;
  if (spec.zero && !spec.align) {
    used.fill = "0";
    used.align = '=';
  }
  const bool as_real = value.is(Kind::kFloat) || is_real_format(spec.type);
  const bool negative = as_real ? std::signbit(value.as_real()) && !std::isnan(value.as_real())
                                : value.as_integer() < 0;
  const std::string digits =
      as_real ? real_digits(value.as_real(), spec) : integer_digits(value.as_integer(), spec);
  return pad(meter, with_sign(negative, spec.sign, digits), used, '>');
}

std::string format_text(Meter& meter, const std::string& text, const FormatSpec& spec, char align) {
  if (!spec.precision) return pad(meter, text, spec, align);
  return pad(meter, text.substr(0, byte_offset(text, static_cast<size_t>(*spec.precision))), spec,
             align);
}

int64_t read_format_number(std::string_view text, size_t& at, int64_t limit) {
  int64_t number = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    number = number * 10 + (text[at++] - '0');
    if (number > limit) throw TemplateError("a width or precision too large for a format");
  }
  return number;
}

}  // namespace qianli::text::jinja
