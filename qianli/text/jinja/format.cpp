// "%5.2f" % x and "{:>5}".format(x): the conversions a template can need, refused beyond.
#include <fmt/format.h>

#include <cctype>
#include <cmath>
#include <optional>

#include "qianli/text/jinja/runtime.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {
namespace {

struct Spec {
  std::string fill = " ";
  char align = 0, sign = 0, type = 0;
  bool alternate = false, zero = false, comma = false;
  int64_t width = 0;
  std::optional<int64_t> precision;
};

constexpr int64_t kMaxWidth = 1 << 20, kMaxPrecision = 400;

std::string pad(Meter& meter, const std::string& text, const Spec& spec, char default_align) {
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

std::string integer_digits(int64_t value, const Spec& spec) {
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

std::string real_digits(double value, const Spec& spec) {
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

bool is_real_type(char type) {
  return type != 0 && std::string_view("eEfFgG%n").find(type) != std::string_view::npos;
}

std::string format_number(Meter& meter, const Value& value, const Spec& spec) {
  Spec used = spec;
  if (spec.zero && !spec.align) {
    used.fill = "0";
    used.align = '=';
  }
  const bool as_real = value.is(Kind::kFloat) || is_real_type(spec.type);
  const bool negative = as_real ? std::signbit(value.as_real()) && !std::isnan(value.as_real())
                                : value.as_integer() < 0;
  const std::string digits =
      as_real ? real_digits(value.as_real(), spec) : integer_digits(value.as_integer(), spec);
  return pad(meter, with_sign(negative, spec.sign, digits), used, '>');
}

std::string format_text(Meter& meter, const std::string& text, const Spec& spec, char align) {
  if (!spec.precision) return pad(meter, text, spec, align);
  return pad(meter, text.substr(0, byte_offset(text, static_cast<size_t>(*spec.precision))), spec,
             align);
}

// Digits at text[at], moved past.
int64_t read_number(std::string_view text, size_t& at, int64_t limit) {
  int64_t number = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    number = number * 10 + (text[at++] - '0');
    if (number > limit) throw TemplateError("a width or precision too large for a format");
  }
  return number;
}

int64_t to_integer(const Value& value) {
  if (value.is_integral()) return value.as_integer();
  if (value.is(Kind::kFloat) && std::abs(value.as_real()) < 9e18) {
    return static_cast<int64_t>(value.as_real());
  }
  throw TemplateError("a number is required for this format, not " + type_name(value));
}

// Takes the values of a % one after the other.
class PercentValues {
 public:
  explicit PercentValues(const Value& values) : values_(values) {}
  const Value& next() {
    if (!values_.is(Kind::kTuple)) {
      if (used_++ > 0) throw TemplateError("not enough arguments for format string");
      return values_;
    }
    if (used_ >= values_.items().size()) {
      throw TemplateError("not enough arguments for format string");
    }
    return values_.items()[used_++];
  }
  const Value& named(Meter& meter, const std::string& name) {
    if (!values_.is(Kind::kDict)) throw TemplateError("format requires a mapping");
    by_name_ = true;
    const Value* found = values_.dict().find(name);
    if (found == nullptr) throw TemplateError("the format's value '" + name + "' is missing");
    meter.step();
    return *found;
  }
  void finish() const {
    // Python takes whatever has items for a mapping, an undefined value too.
    const bool mapping =
        by_name_ || values_.is(Kind::kDict) || values_.is(Kind::kList) || values_.is_undefined();
    const size_t size = values_.is(Kind::kTuple) ? values_.items().size() : 1;
    if (!mapping && used_ < size) {
      throw TemplateError("not all arguments converted during string formatting");
    }
  }

 private:
  const Value& values_;
  size_t used_ = 0;
  bool by_name_ = false;
};

std::string convert_percent(Meter& meter, char type, const Value& value, Spec spec) {
  switch (type) {
    case 's':
      return format_text(meter, to_text(meter, value), spec, '>');
    case 'r':
      return format_text(meter, to_repr(meter, value), spec, '>');
    case 'd':
    case 'i':
    case 'u':
      if (!value.is_number()) {
        throw TemplateError("%d format: a real number is required, not " + type_name(value));
      }
      spec.precision.reset();
      return format_number(meter, Value::integer(to_integer(value)), spec);
    case 'x':
    case 'X':
    case 'o':
      if (!value.is_integral()) throw TemplateError("an integer is required for %x");
      spec.type = type;
      return format_number(meter, Value::integer(value.as_integer()), spec);
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      if (!value.is_number()) throw TemplateError("must be real number, not " + type_name(value));
      spec.type = type;
      return format_number(meter, Value::real(value.as_real()), spec);
    default:
      throw TemplateError(std::string("unsupported format character '") + type + "'");
  }
}

}  // namespace

std::string format_percent(Meter& meter, std::string_view format, const Value& values) {
  meter.work(format.size());
  PercentValues source(values);
  std::string out;
  for (size_t at = 0; at < format.size();) {
    if (format[at] != '%') {
      out += format[at++];
      continue;
    }
    if (++at >= format.size()) throw TemplateError("incomplete format");
    std::optional<Value> named;
    if (format[at] == '(') {
      const size_t end = format.find(')', at);
      if (end == format.npos) throw TemplateError("incomplete format key");
      named = source.named(meter, std::string(format.substr(at + 1, end - at - 1)));
      at = end + 1;
    }
    Spec spec;
    for (;
         at < format.size() && std::string_view("-+ #0").find(format[at]) != std::string_view::npos;
         ++at) {
      if (format[at] == '-')
        spec.align = '<';
      else if (format[at] == '0')
        spec.zero = true;
      else if (format[at] == '#')
        spec.alternate = true;
      else if (spec.sign != '+')
        spec.sign = format[at];
    }
    spec.width = read_number(format, at, kMaxWidth);
    if (at < format.size() && format[at] == '.')
      spec.precision = read_number(format, ++at, kMaxPrecision);
    if (at >= format.size()) throw TemplateError("incomplete format");
    const char type = format[at++];
    if (type == '%')
      out += '%';
    else
      out += convert_percent(meter, type, named ? *named : source.next(), spec);
    meter.check_fits(out.size());
  }
  source.finish();
  return out;
}

namespace {

bool is_align(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

Spec parse_spec(std::string_view text) {
  Spec spec;
  size_t at = 0;
  if (!text.empty()) {
    const size_t first = character_size(text, 0);
    if (first < text.size() && is_align(text[first])) {
      spec.fill = text.substr(0, first);
      at = first;
    }
    if (at < text.size() && is_align(text[at])) spec.align = text[at++];
  }
  const auto take = [&](char c) {
    return at < text.size() && text[at] == c ? (++at, true) : false;
  };
  if (take('+'))
    spec.sign = '+';
  else if (take(' '))
    spec.sign = ' ';
  else
    take('-');
  spec.alternate = take('#');
  spec.zero = take('0');
  spec.width = read_number(text, at, kMaxWidth);
  spec.comma = take(',');
  if (take('.')) spec.precision = read_number(text, at, kMaxPrecision);
  if (at < text.size()) spec.type = text[at++];
  if (at != text.size())
    throw TemplateError("invalid format specifier '" + std::string(text) + "'");
  return spec;
}

std::string apply_spec(Meter& meter, const Value& value, std::string_view text) {
  if (text.empty()) return to_text(meter, value);
  const Spec spec = parse_spec(text);
  if (value.is_string()) {
    if ((spec.type != 0 && spec.type != 's') || spec.sign || spec.comma || spec.align == '=') {
      throw TemplateError("invalid format specifier '" + std::string(text) + "' for a text");
    }
    Spec used = spec;
    if (spec.zero) used.fill = "0";
    return format_text(meter, value.text(), used, '<');
  }
  if (!value.is_number()) {
    throw TemplateError("unsupported format string for " + type_name(value));
  }
  const bool known =
      spec.type == 0 || is_real_type(spec.type) ||
      (value.is_integral() && std::string_view("dxXob").find(spec.type) != std::string_view::npos);
  if (!known || (value.is_integral() && spec.precision && !is_real_type(spec.type))) {
    throw TemplateError("invalid format specifier '" + std::string(text) + "'");
  }
  return format_number(meter, value.is(Kind::kBool) ? Value::integer(value.as_integer()) : value,
                       spec);
}

// The value of "0", "name", "" (the next one), each with ".attribute" and "[item]" behind it.
Value field_value(Runtime& runtime, std::string_view field, const Arguments& arguments,
                  size_t& next) {
  const size_t end = std::min(field.find_first_of(".["), field.size());
  const std::string name(field.substr(0, end));
  Value value;
  if (name.empty() || name.find_first_not_of("0123456789") == name.npos) {
    size_t at = 0;
    const auto index =
        name.empty() ? next++ : static_cast<size_t>(read_number(name, at, kMaxWidth));
    if (index >= arguments.positional.size())
      throw TemplateError("a format asks for more values than there are");
    value = arguments.positional[index];
  } else {
    const Value* found = arguments.find(name);
    if (found == nullptr) throw TemplateError("the format's value '" + name + "' is missing");
    value = *found;
  }
  for (std::string_view rest = field.substr(end); !rest.empty();) {
    const bool item = rest[0] == '[';
    size_t stop = item ? rest.find(']') : std::min(rest.find_first_of(".[", 1), rest.size());
    if (stop == rest.npos) throw TemplateError("missing ']' in a format");
    const std::string key(rest.substr(1, stop - 1));
    if (!item) {
      value = get_attribute(runtime, value, key);
    } else if (!key.empty() && key.find_first_not_of("0123456789") == key.npos) {
      size_t at = 0;
      value = get_item(runtime, value, Value::integer(read_number(key, at, kMaxWidth)));
    } else {
      value = get_item(runtime, value, Value::string(runtime.meter(), key));
    }
    rest.remove_prefix(item ? stop + 1 : stop);
  }
  return value;
}

std::string replacement(Runtime& runtime, std::string_view field, const Arguments& arguments,
                        size_t& next) {
  Meter& meter = runtime.meter();
  const size_t colon = std::min(field.find(':'), field.size());
  std::string_view name = field.substr(0, colon);
  const std::string_view spec = colon < field.size() ? field.substr(colon + 1) : std::string_view();
  if (spec.find('{') != spec.npos)
    throw TemplateError("nested fields in a format are not supported");
  char conversion = 0;
  if (name.size() >= 2 && name[name.size() - 2] == '!') {
    conversion = name.back();
    name.remove_suffix(2);
  }
  Value value = field_value(runtime, name, arguments, next);
  if (conversion == 'r')
    value = Value::string(meter, to_repr(meter, value));
  else if (conversion == 's')
    value = to_string(meter, value);
  else if (conversion != 0)
    throw TemplateError("unknown conversion in a format");
  return apply_spec(meter, value, spec);
}

}  // namespace

std::string format_braces(Runtime& runtime, std::string_view format, const Arguments& arguments) {
  runtime.meter().work(format.size());
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < format.size();) {
    const char c = format[at++];
    if (c != '{' && c != '}') {
      out += c;
    } else if (at < format.size() && format[at] == c) {
      out += c;
      ++at;
    } else {
      const size_t end = c == '{' ? format.find('}', at) : format.npos;
      if (end == format.npos) throw TemplateError("single brace in a format");
      out += replacement(runtime, format.substr(at, end - at), arguments, next);
      at = end + 1;
      runtime.meter().check_fits(out.size());
    }
  }
  return out;
}

}  // namespace qianli::text::jinja
