#include "qianli/text/jinja/evaluator.h"

namespace qianli::text::jinja {

Value Evaluator::evaluate(const Expression& expression) {
  const DepthGuard guard(meter());
  return std::visit([&](const auto& node) { return evaluate(node); }, expression.node);
}

Value& Evaluator::variable(const Place& place) {
  Activation* activation = activation_.get();
  for (int i = 0; i < place.hops; ++i) activation = activation->outer.get();
  return activation->slots[static_cast<size_t>(place.slot)];
}

Value Evaluator::from_context(const std::string& name) {
  if (const Value* found = variables_.find(name)) return *found;
  const Function* function = find_global(name);
  return function ? make_function(meter(), *function) : Value();
}

Value Evaluator::evaluate(const LiteralText& node) { return Value::string(meter(), node.text); }
Value Evaluator::evaluate(const LiteralInteger& node) { return Value::integer(node.value); }
Value Evaluator::evaluate(const LiteralReal& node) { return Value::real(node.value); }
Value Evaluator::evaluate(const LiteralConstant& node) {
  return node.value ? Value::boolean(*node.value) : Value::none();
}

Value Evaluator::evaluate(const Name& node) {
  const Value& value = variable(node.place);
  return value.is_missing() ? Value::undefined(meter(), "'" + node.name + "' is undefined") : value;
}

Value Evaluator::evaluate(const ListExpression& node) {
  std::vector<Value> items;
  for (const auto& item : node.items) items.push_back(evaluate(item));
  return node.tuple ? Value::tuple(meter(), std::move(items))
                    : Value::list(meter(), std::move(items));
}

Value Evaluator::evaluate(const DictExpression& node) {
  const auto dict = std::make_shared<DictObject>(meter());
  for (const auto& [key, value] : node.items) {
    Value known = evaluate(key);
    dict->set(meter(), std::move(known), evaluate(value));
  }
  return make_dict(dict);
}

Value Evaluator::evaluate(const Unary& node) {
  const Value operand = evaluate(node.operand);
  switch (node.op) {
    case Unary::Operator::kNot:
      return Value::boolean(!truth(operand));
    case Unary::Operator::kNegate:
      return negate(operand);
    case Unary::Operator::kPlus:
      return plus(operand);
  }
  return {};
}

Value Evaluator::evaluate(const Binary& node) {
  const Value left = evaluate(node.left);
  return binary(meter(), node.op, left, evaluate(node.right));
}

Value Evaluator::evaluate(const Logical& node) {
  Value left = evaluate(node.left);
  return truth(left) == node.is_and ? evaluate(node.right) : left;
}

Value Evaluator::evaluate(const Concat& node) {
  std::string text;
  for (const auto& part : node.parts) {
    text += to_text(meter(), evaluate(part));
    meter().check_fits(text.size());
  }
  return Value::string(meter(), std::move(text));
}

Value Evaluator::evaluate(const Compare& node) {
  Value left = evaluate(node.first);
  for (const auto& [op, expression] : node.rest) {
    Value right = evaluate(expression);
    if (!compare(meter(), op, left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Evaluator::evaluate(const Conditional& node) {
  if (truth(evaluate(node.condition))) return evaluate(node.value);
  if (node.otherwise) return evaluate(node.otherwise);
  return Value::undefined(meter(), "the inline if-expression was false and has no else section");
}

Value Evaluator::evaluate(const Attribute& node) {
  return get_attribute(*this, evaluate(node.object), node.name);
}

Value Evaluator::evaluate(const Item& node) {
  const Value object = evaluate(node.object);
  return get_item(*this, object, evaluate(node.key));
}

Value Evaluator::evaluate(const Slice& node) {
  const Value object = evaluate(node.object);
  const Value start = evaluate_or_missing(node.start), stop = evaluate_or_missing(node.stop);
  return get_slice(meter(), object, start, stop, evaluate_or_missing(node.step));
}

Value Evaluator::evaluate(const Call& node) {
  const Value callee = evaluate(node.callee);
  return call(callee, evaluate(node.arguments));
}

Value Evaluator::evaluate(const Filter& node) {
  const Value value = node.value ? evaluate(node.value) : *block_text_;
  return filter(node.name, value, evaluate(node.arguments));
}

Value Evaluator::evaluate(const Test& node) {
  const Value value = evaluate(node.value);
  return Value::boolean(test(node.name, value, evaluate(node.arguments)));
}

}  // namespace qianli::text::jinja
