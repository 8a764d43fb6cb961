// "{:>5}".format(x): fields with attributes, items, !r, !s and a format, refused beyond.
#include <algorithm>

#include "qianli/text/jinja/format_spec.h"
#include "qianli/text/jinja/runtime.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {
namespace {

bool is_align(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

FormatSpec parse_spec(std::string_view text) {
  FormatSpec spec;
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
  spec.width = read_format_number(text, at, kMaxWidth);
  spec.comma = take(',');
  if (take('.')) spec.precision = read_format_number(text, at, kMaxPrecision);
  if (at < text.size()) spec.type = text[at++];
  if (at != text.size())
    throw TemplateError("invalid format specifier '" + std::string(text) + "'");
  return spec;
}

std::string apply_spec(Meter& meter, const Value& value, std::string_view text) {
  if (text.empty()) return to_text(meter, value);
  const FormatSpec spec = parse_spec(text);
  if (value.is_string()) {
    if ((spec.type != 0 && spec.type != 's') || spec.sign || spec.comma || spec.align == '=') {
      throw TemplateError("invalid format specifier '" + std::string(text) + "' for a text");
    }
    FormatSpec used = spec;
    if (spec.zero) used.fill = "0";
    return format_text(meter, value.text(), used, '<');
  }
  if (!value.is_number()) {
    throw TemplateError("unsupported format string for " + type_name(value));
  }
  const bool known =
      spec.type == 0 || is_real_format(spec.type) ||
      (value.is_integral() && std::string_view("dxXob").find(spec.type) != std::string_view::npos);
  if (!known || (value.is_integral() && spec.precision && !is_real_format(spec.type))) {
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
        name.empty() ? next++ : static_cast<size_t>(read_format_number(name, at, kMaxWidth));
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
      value = get_item(runtime, value, Value::integer(read_format_number(key, at, kMaxWidth)));
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
