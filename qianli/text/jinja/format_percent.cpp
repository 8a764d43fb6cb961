// "%5.2f" % x: the conversions a template can need, refused beyond.
#include <cmath>
#include <optional>

#include "qianli/text/jinja/format_spec.h"
#include "qianli/text/jinja/runtime.h"

namespace qianli::text::jinja {
namespace {

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

std::string convert_percent(Meter& meter, char type, const Value& value, FormatSpec spec) {
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
    FormatSpec spec;
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
    spec.width = read_format_number(format, at, kMaxWidth);
    if (at < format.size() && format[at] == '.')
      spec.precision = read_format_number(format, ++at, kMaxPrecision);
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

}  // namespace qianli::text::jinja
