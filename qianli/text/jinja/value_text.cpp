// str() and repr().
#include "qianli/text/jinja/callable.h"
#include "qianli/text/jinja/strings.h"
#include "qianli/text/jinja/value.h"

namespace qianli::text::jinja {
namespace {

void append_repr(Meter& meter, std::string& out, const Value& value);

// What a list's text grows by is counted before it grows further.
void append(Meter& meter, std::string& out, std::string_view text) {
  out += text;
  meter.work(text.size());
  meter.check_fits(out.size());
}

void append_items(Meter& meter, std::string& out, const std::vector<Value>& items) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    append_repr(meter, out, items[i]);
  }
}

void append_dict(Meter& meter, std::string& out, const DictObject& dict) {
  out += '{';
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (i > 0) out += ", ";
    append_repr(meter, out, dict.entries[i].first);
    out += ": ";
    append_repr(meter, out, dict.entries[i].second);
  }
  out += '}';
}

void append_namespace(Meter& meter, std::string& out, const NamespaceObject& space) {
  out += "<Namespace {";
  for (size_t i = 0; i < space.attributes.size(); ++i) {
    if (i > 0) out += ", ";
    append(meter, out, quote(space.attributes[i].first) + ": ");
    append_repr(meter, out, space.attributes[i].second);
  }
  out += "}>";
}

std::string scalar_text(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return value.as_boolean() ? "True" : "False";
    case Kind::kInteger:
      return std::to_string(value.as_integer());
    case Kind::kFloat:
      return real_text(value.as_real());
    case Kind::kRange: {
      const RangeObject& range = value.range();
      const std::string ends = std::to_string(range.start) + ", " + std::to_string(range.stop);
      return "range(" + ends + (range.step == 1 ? ")" : ", " + std::to_string(range.step) + ")");
    }
    case Kind::kIterator:
      return "<generator object>";
    case Kind::kMacro:
      return macro_text(value);
    case Kind::kLoop:
      return loop_text(value);
    default:
      return "<built-in " + type_name(value) + ">";
  }
}

void append_repr(Meter& meter, std::string& out, const Value& value) {
  const DepthGuard guard(meter);
  switch (value.kind()) {
    case Kind::kString:
      append(meter, out,
             value.is_markup() ? "Markup(" + quote(value.text()) + ")" : quote(value.text()));
      return;
    case Kind::kList:
      out += '[';
      append_items(meter, out, value.items());
      out += ']';
      return;
    case Kind::kTuple:
      out += '(';
      append_items(meter, out, value.items());
      out += value.items().size() == 1 ? ",)" : ")";
      return;
    case Kind::kView:
      out += value.get<ListObject>().view;
      out += "([";
      append_items(meter, out, value.items());
      out += "])";
      return;
    case Kind::kDict:
      append_dict(meter, out, value.dict());
      return;
    case Kind::kNamespace:
      append_namespace(meter, out, value.get<NamespaceObject>());
      return;
    default:
      append(meter, out, scalar_text(value));
  }
}

}  // namespace

std::string to_repr(Meter& meter, const Value& value) {
  std::string out;
  append_repr(meter, out, value);
  return out;
}

std::string to_text(Meter& meter, const Value& value) {
  if (value.is_string()) return value.text();
  if (value.is_undefined() || value.is_missing()) return "";
  return to_repr(meter, value);
}

Value to_string(Meter& meter, const Value& value) {
  return value.is_string() ? value : Value::string(meter, to_text(meter, value));
}

}  // namespace qianli::text::jinja
