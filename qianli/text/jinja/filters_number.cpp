// Filters of numbers.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "qianli/text/jinja/runtime.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {
namespace {

// Single underscores between digits go; nothing where they stand elsewhere.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      result += text[i];
      continue;
    }
    const auto is_digit = [&](size_t at) {
      return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at]));
    };
    if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) return std::nullopt;
  }
  return result;
}

// int(text, base); nothing where Python raises ValueError.
std::optional<int64_t> parse_integer(std::string_view text, int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) return std::nullopt;
  text = strip(text, Side::kBoth);
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  const std::string prefix(text.substr(0, 2));
  for (const auto& [mark, value] : {std::pair("xX", 16), std::pair("oO", 8), std::pair("bB", 2)}) {
    if (prefix.size() < 2 || prefix[0] != '0' || (prefix[1] != mark[0] && prefix[1] != mark[1]))
      continue;
    if (base != 0 && base != value) continue;
    base = value;
    text.remove_prefix(2);
    if (!text.empty() && text[0] == '_') text.remove_prefix(1);
  }
  if (base == 0 && text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") != text.npos) {
    return std::nullopt;
  }
  const auto digits = without_underscores(text);
  if (!digits || digits->empty() || (*digits)[0] == '-') return std::nullopt;
  uint64_t number = 0;
  const char* end = digits->data() + digits->size();
  const auto [stop, error] =
      std::from_chars(digits->data(), end, number, base == 0 ? 10 : static_cast<int>(base));
  if (stop != end) return std::nullopt;
  if (error == std::errc::result_out_of_range || number > uint64_t{INT64_MAX}) {
    throw TemplateError("an integer of more than 64 bits");
  }
  return negative ? -static_cast<int64_t>(number) : static_cast<int64_t>(number);
}

// float(text).
std::optional<double> parse_real(std::string_view text) {
  text = strip(text, Side::kBoth);
  const auto number = without_underscores(text);
  if (!number || number->empty()) return std::nullopt;
  std::string plain = lower(*number);
  std::string_view unsigned_part = plain;
  if (unsigned_part[0] == '-' || unsigned_part[0] == '+') unsigned_part.remove_prefix(1);
  const bool named =
      unsigned_part == "inf" || unsigned_part == "infinity" || unsigned_part == "nan";
  if (!named && unsigned_part.find_first_not_of("0123456789.e+-") != unsigned_part.npos)
    return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(plain.c_str(), &end);
  return end == plain.c_str() + plain.size() ? std::optional(value) : std::nullopt;
}

std::optional<int64_t> truncated(double value) {
  if (std::isnan(value) || std::isinf(value)) return std::nullopt;
  if (std::abs(value) >= 9.2e18) throw TemplateError("an integer of more than 64 bits");
  return static_cast<int64_t>(value);
}

std::optional<double> to_real(const Value& value) {
  if (value.is_undefined()) throw TemplateError(value.text());
  if (value.is_number()) return value.as_real();
  return value.is_string() ? parse_real(value.text()) : std::nullopt;
}

Value int_filter(const Bound& a) {
  const Value otherwise = a.has(1) ? a[1] : Value::integer(0);
  if (a[0].is_integral()) return Value::integer(a[0].as_integer());
  if (a[0].is_string()) {
    if (const auto whole = parse_integer(a[0].text(), a.integer_or(2, 10)))
      return Value::integer(*whole);
  }
  const auto real = to_real(a[0]);
  const auto whole = real ? truncated(*real) : std::nullopt;
  return whole ? Value::integer(*whole) : otherwise;
}

Value float_filter(const Bound& a) {
  const auto real = to_real(a[0]);
  return real ? Value::real(*real) : a.has(1) ? a[1] : Value::real(0);
}

const Value& number(const Bound& a) {
  if (a[0].is_undefined()) throw TemplateError(a[0].text());
  if (!a[0].is_number()) {
    throw TemplateError(std::string(a.function().name) + "() expects a number, got '" +
                        type_name(a[0]) + "'");
  }
  return a[0];
}

Value abs_filter(const Bound& a) {
  const Value& value = number(a);
  if (value.is(Kind::kFloat)) return Value::real(std::abs(value.as_real()));
  return value.as_integer() < 0 ? negate(value) : Value::integer(value.as_integer());
}

// round(): half to even, decided on the exact value. printf's conversion does both.
double round_real(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 323) return value;
  if (digits < -308) return std::copysign(0.0, value);
  if (digits >= 0) {
    char buffer[1024];
    std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(digits), value);
    return std::strtod(buffer, nullptr);
  }
  const double unit = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / unit) * unit;
}

int64_t round_integer(int64_t value, int64_t digits) {
  if (digits >= 0) return value;
  if (digits < -18) return 0;
  __int128 unit = 1;
  for (int64_t i = 0; i < -digits; ++i) unit *= 10;
  __int128 whole = value / unit, rest = value % unit;
  if (rest < 0) rest += unit, --whole;
  if (2 * rest > unit || (2 * rest == unit && whole % 2 != 0)) ++whole;
  const __int128 result = whole * unit;
  if (result > INT64_MAX || result < INT64_MIN)
    throw TemplateError("an integer of more than 64 bits");
  return static_cast<int64_t>(result);
}

Value round_filter(const Bound& a) {
  const Value& value = number(a);
  const int64_t digits = a.integer_or(1, 0);
  const std::string method = a.text_or(2, "common");
  if (method == "common") {
    return value.is_integral() ? Value::integer(round_integer(value.as_integer(), digits))
                               : Value::real(round_real(value.as_real(), digits));
  }
  if (method != "ceil" && method != "floor") {
    throw TemplateError("round() expects the method common, ceil or floor");
  }
  const double unit = std::pow(10.0, static_cast<double>(digits));
  const double scaled = value.as_real() * unit;
  const double whole = method == "ceil" ? std::ceil(scaled) : std::floor(scaled);
  if (!std::isfinite(whole) || unit == 0)
    throw TemplateError("round() of a number that is too large");
  return Value::real(whole / unit);
}

constexpr Function kFilters[] = {
    {"int", "value,default?,base?", int_filter},
    {"float", "value,default?", float_filter},
    {"abs", "x", abs_filter},
    {"round", "value,precision?,method?", round_filter},
};

}  // namespace

FunctionTable number_filters() { return kFilters; }

}  // namespace qianli::text::jinja
