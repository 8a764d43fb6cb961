// + - * / // % ** and comparisons. Integers have 64 bits: where Python's would grow beyond, an
// error.
#include <cmath>

#include "qianli/text/jinja/runtime.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {
namespace {

const char* symbol(BinaryOperator op) {
  constexpr const char* kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};
  return kSymbols[static_cast<int>(op)];
}

[[noreturn]] void unsupported(BinaryOperator op, const Value& left, const Value& right) {
  for (const Value* value : {&left, &right}) {
    if (value->is_undefined()) throw TemplateError(value->text());
  }
  throw TemplateError("unsupported operand types for " + std::string(symbol(op)) + ": '" +
                      type_name(left) + "' and '" + type_name(right) + "'");
}

[[noreturn]] void overflow() { throw TemplateError("an integer of more than 64 bits"); }

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (true) {
    if (exponent & 1 && __builtin_mul_overflow(result, base, &result)) overflow();
    exponent >>= 1;
    if (exponent == 0) return result;
    if (__builtin_mul_overflow(base, base, &base)) overflow();
  }
}

Value integer_arithmetic(BinaryOperator op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case BinaryOperator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) overflow();
      break;
    case BinaryOperator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) overflow();
      break;
    case BinaryOperator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) overflow();
      break;
    case BinaryOperator::kDivide:
      if (b == 0) throw TemplateError("division by zero");
      return Value::real(
          static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
    case BinaryOperator::kFloorDivide:
    case BinaryOperator::kModulo: {
      if (b == 0) throw TemplateError("division by zero");
      if (b == -1) {  // INT64_MIN / -1 does not fit
        if (op == BinaryOperator::kModulo) break;
        if (__builtin_sub_overflow(int64_t{0}, a, &result)) overflow();
        break;
      }
      const int64_t rest = a % b;
      const bool below = rest != 0 && (rest < 0) != (b < 0);  // C++ rounds to zero, Python down
      result = op == BinaryOperator::kModulo ? rest + (below ? b : 0) : a / b - (below ? 1 : 0);
      break;
    }
    case BinaryOperator::kPower:
      if (b >= 0) return Value::integer(power(a, b));
      if (a == 0) throw TemplateError("0.0 cannot be raised to a negative power");
      return Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)));
  }
  return Value::integer(result);
}

double floor_modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

double floor_divide(double a, double b) {
  const double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (b < 0) != (rest < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1 : whole;
}

double real_power(double a, double b) {
  if (a == 0 && b < 0) throw TemplateError("0.0 cannot be raised to a negative power");
  if (a < 0 && std::isfinite(a) && std::isfinite(b) && b != std::floor(b)) {
    throw TemplateError("a negative number to a fractional power");
  }
  const double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
    throw TemplateError("a number too large for a float");
  }
  return result;
}

Value real_arithmetic(BinaryOperator op, double a, double b) {
  const bool divides = op == BinaryOperator::kDivide || op == BinaryOperator::kFloorDivide ||
                       op == BinaryOperator::kModulo;
  if (divides && b == 0) throw TemplateError("division by zero");
  switch (op) {
    case BinaryOperator::kAdd:
      return Value::real(a + b);
    case BinaryOperator::kSubtract:
      return Value::real(a - b);
    case BinaryOperator::kMultiply:
      return Value::real(a * b);
    case BinaryOperator::kDivide:
      return Value::real(a / b);
    case BinaryOperator::kFloorDivide:
      return Value::real(floor_divide(a, b));
    case BinaryOperator::kModulo:
      return Value::real(floor_modulo(a, b));
    case BinaryOperator::kPower:
      return Value::real(real_power(a, b));
  }
  return {};
}

// Markup + text escapes the text.
Value concatenate(Meter& meter, const Value& left, const Value& right) {
  if (!left.is_markup() && !right.is_markup()) {
    meter.expect(left.text().size() + right.text().size());
    return Value::string(meter, left.text() + right.text());
  }
  const auto escaped = [](const Value& value) {
    return value.is_markup() ? value.text() : escape_html(value.text());
  };
  return Value::string(meter, escaped(left) + escaped(right)).as_markup();
}

Value repeat(Meter& meter, const Value& sequence, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  const size_t size =
      sequence.is_string() ? sequence.text().size() : sequence.items().size() * sizeof(Value);
  if (size != 0 && count > SIZE_MAX / 2 / size)
    throw TemplateError("the template needs too much memory");
  meter.expect(size * count);
  if (sequence.is_string()) {
    std::string text;
    text.reserve(size * count);
    for (size_t i = 0; size != 0 && i < count; ++i) text += sequence.text();
    const Value result = Value::string(meter, std::move(text));
    return sequence.is_markup() ? result.as_markup() : result;
  }
  std::vector<Value> items;
  for (size_t i = 0; size != 0 && i < count; ++i) {
    items.insert(items.end(), sequence.items().begin(), sequence.items().end());
  }
  return sequence.is(Kind::kList) ? Value::list(meter, std::move(items))
                                  : Value::tuple(meter, std::move(items));
}

bool is_sequence(const Value& value) {
  return value.is_string() || value.is(Kind::kList) || value.is(Kind::kTuple);
}

Value join_lists(Meter& meter, const Value& left, const Value& right) {
  meter.expect((left.items().size() + right.items().size()) * sizeof(Value));
  std::vector<Value> items = left.items();
  items.insert(items.end(), right.items().begin(), right.items().end());
  return left.is(Kind::kList) ? Value::list(meter, std::move(items))
                              : Value::tuple(meter, std::move(items));
}

}  // namespace

Value binary(Meter& meter, BinaryOperator op, const Value& left, const Value& right) {
  if (left.is_integral() && right.is_integral()) {
    return integer_arithmetic(op, left.as_integer(), right.as_integer());
  }
  if (left.is_number() && right.is_number()) {
    return real_arithmetic(op, left.as_real(), right.as_real());
  }
  if (op == BinaryOperator::kAdd && left.is_string() && right.is_string()) {
    return concatenate(meter, left, right);
  }
  if (op == BinaryOperator::kAdd && left.kind() == right.kind() &&
      (left.is(Kind::kList) || left.is(Kind::kTuple))) {
    return join_lists(meter, left, right);
  }
  if (op == BinaryOperator::kMultiply && is_sequence(left) && right.is_integral()) {
    return repeat(meter, left, right.as_integer());
  }
  if (op == BinaryOperator::kMultiply && is_sequence(right) && left.is_integral()) {
    return repeat(meter, right, left.as_integer());
  }
  if (op == BinaryOperator::kModulo && left.is_string()) {
    return Value::string(meter, format_percent(meter, left.text(), right));
  }
  unsupported(op, left, right);
}

bool compare(Meter& meter, CompareOperator op, const Value& left, const Value& right) {
  switch (op) {
    case CompareOperator::kEqual:
      return equal(meter, left, right);
    case CompareOperator::kNotEqual:
      return !equal(meter, left, right);
    case CompareOperator::kLess:
      return less(meter, left, right);
    case CompareOperator::kGreater:
      return less(meter, right, left);
    case CompareOperator::kLessEqual:
      return less(meter, left, right) || equal(meter, left, right);
    case CompareOperator::kGreaterEqual:
      return less(meter, right, left) || equal(meter, left, right);
    case CompareOperator::kIn:
      return contains(meter, right, left);
    case CompareOperator::kNotIn:
      return !contains(meter, right, left);
  }
  return false;
}

Value negate(const Value& value) {
  if (value.is(Kind::kFloat)) return Value::real(-value.as_real());
  if (value.is_integral())
    return integer_arithmetic(BinaryOperator::kSubtract, 0, value.as_integer());
  if (value.is_undefined()) throw TemplateError(value.text());
  throw TemplateError("bad operand type for unary -: '" + type_name(value) + "'");
}

Value plus(const Value& value) {
  if (value.is(Kind::kFloat)) return value;
  if (value.is_integral()) return Value::integer(value.as_integer());
  if (value.is_undefined()) throw TemplateError(value.text());
  throw TemplateError("bad operand type for unary +: '" + type_name(value) + "'");
}

}  // namespace qianli::text::jinja
