#include "qianli/text/jinja/evaluator.h"

namespace qianli::text::jinja {

Activation::Activation(Meter& meter, const FunctionFrame& frame, std::shared_ptr<Activation> parent)
    : charge(meter, static_cast<size_t>(frame.num_slots) * sizeof(Value) + 96),
      slots(static_cast<size_t>(frame.num_slots)),
      outer(std::move(parent)) {}

Evaluator::Evaluator(Meter& meter, const std::tm& now, const DictObject& variables)
    : Runtime(meter, now), variables_(variables) {}

Evaluator::~Evaluator() {
  // Activations and the macros in them may hold each other in a circle.
  for (const auto& activation : kept_) activation->slots.clear();
}

std::string Evaluator::render(const ParsedTemplate& parsed) {
  Capture output(*this);
  root_ = &output;
  activation_ = activate(parsed.function, nullptr);
  enter(parsed.scope);
  run(parsed.body);
  return output.take();
}

Evaluator::Flow Evaluator::run(const Block& block) {
  const DepthGuard guard(meter());
  for (const Statement& statement : block) {
    line_ = statement.line;
    meter().step();
    const Flow flow = std::visit([&](const auto& node) { return run(node); }, statement.node);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

void Evaluator::print(const Value& value) {
  if (value.is_string())
    output_->append(value.text());
  else
    output_->append(to_text(meter(), value));
}

Evaluator::Flow Evaluator::run(const Text& node) {
  output_->append(node.text);
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const Print& node) {
  print(evaluate(node.value));
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const If& node) {
  for (const auto& [condition, body] : node.branches) {
    if (truth(evaluate(condition))) return run(body);
  }
  return run(node.otherwise);
}

Evaluator::Flow Evaluator::run(const Assign& node) {
  assign(node.target, evaluate(node.value));
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const AssignBlock& node) {
  enter(node.scope);
  Value value;
  {
    Capture capture(*this);
    const Flow flow = run(node.body);
    if (flow != Flow::kNormal) return flow;
    value = capture.value();
  }
  if (node.filter) {
    block_text_ = &value;
    value = evaluate(node.filter);
  }
  assign(node.target, std::move(value));
  leave(node.scope);
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const MacroDefinition& node) {
  variable(node.macro->name.place) = make_macro(*node.macro);
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const CallBlock& node) {
  const Value caller = make_macro(*node.body);
  const auto& call_node = std::get<Call>(node.call->node);
  const Value callee = evaluate(call_node.callee);
  Arguments arguments = evaluate(call_node.arguments);
  arguments.named.emplace_back("caller", caller);
  print(call(callee, std::move(arguments)));
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const Generation& node) {
  const size_t begin = root_->size();
  const Value text = call(make_macro(*node.body), {});
  generations_.push_back({begin, begin + text.text().size()});
  nested_generation_ |= output_ != root_;
  print(text);
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const FilterBlock& node) {
  enter(node.scope);
  Value value;
  {
    Capture capture(*this);
    const Flow flow = run(node.body);
    if (flow != Flow::kNormal) return flow;
    value = capture.value();
  }
  block_text_ = &value;
  print(evaluate(node.filter));
  leave(node.scope);
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const With& node) {
  enter(node.scope);
  for (const auto& [target, value] : node.assignments) assign(target, evaluate(value));
  const Flow flow = run(node.body);
  leave(node.scope);
  return flow;
}

Evaluator::Flow Evaluator::run(const LoopControl& node) {
  return node.is_break ? Flow::kBreak : Flow::kContinue;
}

void Evaluator::enter(const Scope& scope) {
  for (const Load& load : scope.loads) {
    Value value;
    if (load.from == Load::From::kContext)
      value = from_context(load.name);
    else if (load.from == Load::From::kPlace)
      value = variable(load.place);
    activation_->slots[static_cast<size_t>(load.slot)] = std::move(value);
  }
}

void Evaluator::leave(const Scope& scope) {
  for (const int slot : scope.slots) activation_->slots[static_cast<size_t>(slot)] = {};
}

void Evaluator::assign(const Target& target, Value value) {
  if (const auto* name = std::get_if<Name>(&target.node)) {
    variable(name->place) = std::move(value);
  } else if (const auto* member = std::get_if<Target::Member>(&target.node)) {
    set_attribute(meter(), evaluate(member->space), member->attribute, std::move(value));
  } else {
    unpack(std::get<std::vector<Target>>(target.node), value);
  }
}

void Evaluator::unpack(const std::vector<Target>& targets, const Value& value) {
  std::vector<Value> items = to_items(meter(), value);
  if (items.size() != targets.size()) {
    throw TemplateError("cannot unpack " + std::to_string(items.size()) + " values into " +
                        std::to_string(targets.size()) + " names");
  }
  for (size_t i = 0; i < items.size(); ++i) assign(targets[i], std::move(items[i]));
}

}  // namespace qianli::text::jinja
