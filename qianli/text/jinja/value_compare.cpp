// Truth, equality, order, hashes, membership and length, as Python defines them.
#include <cmath>
#include <functional>

#include "qianli/text/jinja/callable.h"
#include "qianli/text/jinja/value.h"

namespace qianli::text::jinja {
namespace {

bool is_sequence_of_items(const Value& value) {
  return value.is(Kind::kList) || value.is(Kind::kTuple) || value.is(Kind::kView);
}

bool equal_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.as_integer() == b.as_integer();
  // long double holds every int64 exactly.
  const auto exact = [](const Value& value) {
    return value.is_integral() ? static_cast<long double>(value.as_integer())
                               : static_cast<long double>(value.as_real());
  };
  return exact(a) == exact(b);
}

bool less_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.as_integer() < b.as_integer();
  return (a.is_integral() ? static_cast<long double>(a.as_integer()) : a.as_real()) <
         (b.is_integral() ? static_cast<long double>(b.as_integer()) : b.as_real());
}

bool equal_items(Meter& meter, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!equal(meter, a[i], b[i])) return false;
  }
  return true;
}

bool equal_dicts(Meter& meter, const DictObject& a, const DictObject& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.find(meter, key);
    if (other == nullptr || !equal(meter, value, *other)) return false;
  }
  return true;
}

bool equal_ranges(const RangeObject& a, const RangeObject& b) {
  return a.size == b.size &&
         (a.size == 0 || (a.start == b.start && (a.size == 1 || a.step == b.step)));
}

}  // namespace

bool truth(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInteger:
      return value.as_integer() != 0;
    case Kind::kFloat:
      return value.as_real() != 0;
    case Kind::kIterator:
    case Kind::kNamespace:
    case Kind::kFunction:
    case Kind::kMacro:
      return true;
    default:
      return length(value) != 0;
  }
}

bool has_length(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kView:
    case Kind::kRange:
    case Kind::kLoop:
      return true;
    default:
      return false;
  }
}

bool is_iterable(const Value& value) {
  return (has_length(value) && !value.is(Kind::kLoop)) || value.is(Kind::kIterator);
}

int64_t length(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return static_cast<int64_t>(value.characters());
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      return static_cast<int64_t>(value.items().size());
    case Kind::kDict:
      return static_cast<int64_t>(value.dict().entries.size());
    case Kind::kRange:
      return value.range().size;
    case Kind::kLoop:
      return loop_length(value);
    default:
      throw TemplateError("object of type '" + type_name(value) + "' has no len()");
  }
}

bool equal(Meter& meter, const Value& a, const Value& b) {
  meter.step();
  if (a.is_number() && b.is_number()) return equal_numbers(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      meter.work(a.text().size());
      return a.text() == b.text();
    case Kind::kDict:
      return a.object() == b.object() || equal_dicts(meter, a.dict(), b.dict());
    case Kind::kRange:
      return equal_ranges(a.range(), b.range());
    case Kind::kList:
    case Kind::kTuple:
      return a.object() == b.object() || equal_items(meter, a.items(), b.items());
    case Kind::kFunction:
      return same_function(a, b);
    default:
      return a.object() == b.object();
  }
}

bool less(Meter& meter, const Value& a, const Value& b) {
  meter.step();
  if (a.is_number() && b.is_number()) return less_numbers(a, b);
  if (a.is_string() && b.is_string()) {
    meter.work(std::min(a.text().size(), b.text().size()));
    return a.text() < b.text();  // UTF-8 sorts as code points do
  }
  if (a.kind() == b.kind() && (a.is(Kind::kList) || a.is(Kind::kTuple))) {
    const auto &left = a.items(), &right = b.items();
    for (size_t i = 0; i < left.size() && i < right.size(); ++i) {
      if (!equal(meter, left[i], right[i])) return less(meter, left[i], right[i]);
    }
    return left.size() < right.size();
  }
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined()) throw TemplateError(value->text());
  }
  throw TemplateError("'<' not supported between instances of '" + type_name(a) + "' and '" +
                      type_name(b) + "'");
}

size_t hash(Meter& meter, const Value& value) {
  meter.step();
  switch (value.kind()) {
    case Kind::kBool:
    case Kind::kInteger:
      return std::hash<int64_t>{}(value.as_integer());
    case Kind::kFloat: {
      const double real = value.as_real();
      const bool whole = std::abs(real) < 9e18 && real == std::floor(real);
      return whole ? std::hash<int64_t>{}(static_cast<int64_t>(real)) : std::hash<double>{}(real);
    }
    case Kind::kString:
      meter.work(value.text().size());
      return std::hash<std::string_view>{}(value.text());
    case Kind::kTuple: {
      size_t combined = 17;
      for (const Value& item : value.items()) combined = combined * 31 + hash(meter, item);
      return combined;
    }
    case Kind::kNone:
    case Kind::kUndefined:
    case Kind::kRange:
      return static_cast<size_t>(value.kind());
    case Kind::kList:
    case Kind::kDict:
    case Kind::kView:
      throw TemplateError("unhashable type: '" + type_name(value) + "'");
    default:
      return std::hash<const void*>{}(value.object());
  }
}

bool contains(Meter& meter, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) {
      throw TemplateError("'in <string>' requires string as left operand, not " + type_name(item));
    }
    meter.work(container.text().size());
    return container.text().find(item.text()) != std::string::npos;
  }
  if (container.is(Kind::kDict)) return container.dict().find(meter, item) != nullptr;
  if (is_sequence_of_items(container)) {
    for (const Value& other : container.items()) {
      if (other.object() != nullptr && other.object() == item.object()) return true;
      if (equal(meter, other, item)) return true;
    }
    return false;
  }
  if (!is_iterable(container)) {
    throw TemplateError("argument of type '" + type_name(container) + "' is not iterable");
  }
  Value other;
  for (Cursor cursor(container); cursor.next(meter, other);) {
    if (equal(meter, other, item)) return true;
  }
  return false;
}

}  // namespace qianli::text::jinja
