// What stands behind `is`.
#include "qianli/text/jinja/runtime.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {
namespace {

template <Kind kind>
Value is_kind(const Bound& a) {
  return Value::boolean(a[0].is(kind));
}

Value is_defined(const Bound& a) { return Value::boolean(!a[0].is_undefined()); }
Value is_true(const Bound& a) { return Value::boolean(a[0].is(Kind::kBool) && a[0].as_boolean()); }
Value is_false(const Bound& a) {
  return Value::boolean(a[0].is(Kind::kBool) && !a[0].as_boolean());
}
Value is_number(const Bound& a) { return Value::boolean(a[0].is_number()); }
Value is_escaped(const Bound& a) { return Value::boolean(a[0].is_markup()); }
Value is_iterable_test(const Bound& a) {
  return Value::boolean(is_iterable(a[0]) || a[0].is(Kind::kLoop));
}
Value is_lower(const Bound& a) { return Value::boolean(*classify("islower", a.text(0))); }
Value is_upper(const Bound& a) { return Value::boolean(*classify("isupper", a.text(0))); }

// Has a length and items by index; Python's mappings count.
Value is_sequence(const Bound& a) {
  const Value& value = a[0];
  return Value::boolean(value.is_string() || value.is(Kind::kList) || value.is(Kind::kTuple) ||
                        value.is(Kind::kDict) || value.is(Kind::kRange) || value.is_undefined());
}

Value is_callable(const Bound& a) {
  return Value::boolean(a[0].is(Kind::kFunction) || a[0].is(Kind::kMacro) || a[0].is(Kind::kLoop) ||
                        a[0].is_undefined());
}

Value rest_of(const Bound& a, const Value& divisor) {
  return binary(a.meter(), BinaryOperator::kModulo, a[0], divisor);
}
Value is_odd(const Bound& a) {
  return Value::boolean(equal(a.meter(), rest_of(a, Value::integer(2)), Value::integer(1)));
}
Value is_even(const Bound& a) {
  return Value::boolean(equal(a.meter(), rest_of(a, Value::integer(2)), Value::integer(0)));
}
Value is_divisible(const Bound& a) {
  return Value::boolean(equal(a.meter(), rest_of(a, a[1]), Value::integer(0)));
}

template <CompareOperator op>
Value compares(const Bound& a) {
  return Value::boolean(compare(a.meter(), op, a[0], a[1]));
}

Value is_same(const Bound& a) {
  const bool same = a[0].kind() == a[1].kind() && a[0].object() == a[1].object() &&
                    (a[0].object() || a[0].is_none() || equal(a.meter(), a[0], a[1]));
  return Value::boolean(same);
}

Value is_filter(const Bound& a) {
  hash(a.meter(), a[0]);  // refuses what cannot be a key
  return Value::boolean(a[0].is_string() && find_filter(a[0].text()));
}
Value is_test(const Bound& a) {
  hash(a.meter(), a[0]);
  return Value::boolean(a[0].is_string() && find_test(a[0].text()));
}

constexpr Function kTests[] = {
    {"defined", "value", is_defined},
    {"undefined", "value", is_kind<Kind::kUndefined>},
    {"none", "value", is_kind<Kind::kNone>},
    {"string", "value", is_kind<Kind::kString>},
    {"mapping", "value", is_kind<Kind::kDict>},
    {"boolean", "value", is_kind<Kind::kBool>},
    {"integer", "value", is_kind<Kind::kInteger>},
    {"float", "value", is_kind<Kind::kFloat>},
    {"number", "value", is_number},
    {"sequence", "value", is_sequence},
    {"iterable", "value", is_iterable_test},
    {"callable", "value", is_callable},
    {"true", "value", is_true},
    {"false", "value", is_false},
    {"lower", "value", is_lower},
    {"upper", "value", is_upper},
    {"odd", "value", is_odd},
    {"even", "value", is_even},
    {"divisibleby", "value,num", is_divisible},
    {"escaped", "value", is_escaped},
    {"sameas", "value,other", is_same},
    {"filter", "value", is_filter},
    {"test", "value", is_test},
    {"in", "value,seq", compares<CompareOperator::kIn>},
    {"==", "a,b", compares<CompareOperator::kEqual>},
    {"eq", "a,b", compares<CompareOperator::kEqual>},
    {"equalto", "a,b", compares<CompareOperator::kEqual>},
    {"!=", "a,b", compares<CompareOperator::kNotEqual>},
    {"ne", "a,b", compares<CompareOperator::kNotEqual>},
    {"<", "a,b", compares<CompareOperator::kLess>},
    {"lt", "a,b", compares<CompareOperator::kLess>},
    {"lessthan", "a,b", compares<CompareOperator::kLess>},
    {"<=", "a,b", compares<CompareOperator::kLessEqual>},
    {"le", "a,b", compares<CompareOperator::kLessEqual>},
    {">", "a,b", compares<CompareOperator::kGreater>},
    {"gt", "a,b", compares<CompareOperator::kGreater>},
    {"greaterthan", "a,b", compares<CompareOperator::kGreater>},
    {">=", "a,b", compares<CompareOperator::kGreaterEqual>},
    {"ge", "a,b", compares<CompareOperator::kGreaterEqual>},
};

}  // namespace

const Function* find_test(std::string_view name) { return find_in(kTests, name); }

}  // namespace qianli::text::jinja
