// Filters that apply another filter or a test to every item, and those for any value.
#include "qianli/text/jinja/pick.h"
#include "qianli/text/jinja/runtime.h"

namespace qianli::text::jinja {
namespace {

Value map(const Bound& a) {
  Runtime& runtime = a.runtime();
  Arguments rest = a.rest();
  if (!truth(a[0])) return Value::iterator(a.meter(), {});
  std::vector<Value> result;
  Value item;
  if (rest.positional.empty()) {
    const Value* attribute = rest.find("attribute");
    const Value* otherwise = rest.find("default");
    if (!attribute || rest.named.size() != (otherwise ? 2u : 1u)) {
      throw TemplateError("map() expects a filter or an attribute");
    }
    const AttributePath path(runtime, *attribute);
    for (Cursor cursor(a[0]); cursor.next(a.meter(), item);) {
      result.push_back(path.of(runtime, item, otherwise ? *otherwise : Value()));
    }
    return Value::iterator(a.meter(), std::move(result));
  }
  if (!rest.positional[0].is_string()) throw TemplateError("map() expects the name of a filter");
  const std::string name = rest.positional[0].text();
  rest.positional.erase(rest.positional.begin());
  for (Cursor cursor(a[0]); cursor.next(a.meter(), item);) {
    result.push_back(runtime.filter(name, item, rest));
  }
  return Value::iterator(a.meter(), std::move(result));
}

// The items (or those whose attribute) for which a test, or truth, comes out as `wanted`.
Value pick(const Bound& a, bool wanted, bool by_attribute) {
  Runtime& runtime = a.runtime();
  Arguments rest = a.rest();
  if (!truth(a[0])) return Value::iterator(a.meter(), {});
  const auto take = [&] {
    Value value = rest.positional.front();
    rest.positional.erase(rest.positional.begin());
    return value;
  };
  if (by_attribute && rest.positional.empty())
    throw TemplateError("an attribute's name is missing");
  const AttributePath path(runtime, by_attribute ? take() : Value());
  const Value test = rest.positional.empty() ? Value() : take();
  if (!test.is_missing() && !test.is_string()) throw TemplateError("expected the name of a test");
  std::vector<Value> result;
  Value item;
  for (Cursor cursor(a[0]); cursor.next(a.meter(), item);) {
    const Value looked_at = path.of(runtime, item);
    const bool holds =
        test.is_missing() ? truth(looked_at) : runtime.test(test.text(), looked_at, rest);
    if (holds == wanted) result.push_back(item);
  }
  return Value::iterator(a.meter(), std::move(result));
}

Value select(const Bound& a) { return pick(a, true, false); }
Value reject(const Bound& a) { return pick(a, false, false); }
Value select_attribute(const Bound& a) { return pick(a, true, true); }
Value reject_attribute(const Bound& a) { return pick(a, false, true); }

Value default_filter(const Bound& a) {
  const bool absent = a[0].is_undefined() || (a.truth_or(2, false) && !truth(a[0]));
  if (!absent) return a[0];
  return a.has(1) ? a[1] : Value::string(a.meter(), "");
}

Value attribute(const Bound& a) {
  Value value = get_attribute(a.runtime(), a[0], a.text(1));
  // Unlike object.name, the filter never looks for an item.
  const bool item = a[0].is(Kind::kDict) && !find_method(a[0], a.text(1));
  return item ? Value::undefined(a.meter(), "no attribute '" + a.text(1) + "'") : value;
}

constexpr Function kFilters[] = {
    {"map", "value,*", map},
    {"select", "value,*", select},
    {"reject", "value,*", reject},
    {"selectattr", "value,*", select_attribute},
    {"rejectattr", "value,*", reject_attribute},
    {"default", "value,default_value?,boolean?", default_filter},
    {"d", "value,default_value?,boolean?", default_filter},
    {"attr", "obj,name", attribute},
};

}  // namespace

FunctionTable pick_filters() { return kFilters; }

}  // namespace qianli::text::jinja
