// For loops and the variable `loop`.
#include "qianli/text/jinja/evaluator.h"

namespace qianli::text::jinja {

LoopState::LoopState(Meter& meter, Value what, std::function<bool(Value&)> next, int depth)
    : Object(meter, sizeof(LoopState), what.depth() + 1),
      iterable(std::move(what)),
      pull(std::move(next)),
      depth0(depth) {}

bool LoopState::has_next() {
  if (!ahead.empty()) return true;
  Value item;
  if (!pull(item)) return false;
  ahead.push_back(std::move(item));
  return true;
}

bool LoopState::advance() {
  if (!has_next()) return false;
  previous = std::move(current);
  current = std::move(ahead.front());
  ahead.pop_front();
  ++index0;
  return true;
}

int64_t LoopState::length() {
  if (known_length) return *known_length;
  if (!iterable.is_missing() && has_length(iterable)) {
    known_length = jinja::length(iterable);
  } else {
    for (Value item; pull(item);) ahead.push_back(std::move(item));
    known_length = static_cast<int64_t>(ahead.size()) + index0 + 1;
  }
  return *known_length;
}

bool Evaluator::passes(const For& node, const Value& item) {
  assign(*node.condition_target, item);
  return truth(evaluate(node.condition));
}

Evaluator::Flow Evaluator::run(const For& node) {
  const Value iterable = evaluate(node.iterable);
  if (!node.recursive) return run_items(node, iterable, 0);
  print(run_recursive(node, iterable, 0, activation_));
  return Flow::kNormal;
}

Value Evaluator::run_recursive(const For& node, const Value& iterable, int depth0,
                               const std::shared_ptr<Activation>& outer) {
  const DepthGuard guard(meter());
  const Enter inside(*this, activate(node.function, outer));
  Capture capture(*this);
  run_items(node, iterable, depth0);
  return capture.value();
}

Evaluator::Flow Evaluator::run_items(const For& node, const Value& iterable, int depth0) {
  Cursor cursor(iterable);
  // A macro that was given `loop` may ask for the next item: the condition runs in its own
  // function.
  const auto pull = [this, &node, &cursor, activation = activation_](Value& item) {
    while (cursor.next(meter(), item)) {
      if (!node.condition) return true;
      const Enter inside(*this, activation);
      if (passes(node, item)) return true;
    }
    return false;
  };
  if (node.condition) enter(node.condition_scope);
  const auto state =
      std::make_shared<LoopState>(meter(), node.condition ? Value() : iterable, pull, depth0);
  if (node.recursive) {
    state->recurse = [this, &node, depth0, outer = activation_->outer](const Value& inner) {
      return run_recursive(node, inner, depth0 + 1, outer);
    };
  }
  // A template may keep `loop` in a namespace; afterwards it must not reach this frame any more.
  struct Closing {
    LoopState& state;
    ~Closing() {
      state.pull = [](Value&) { return false; };
      state.recurse = nullptr;
      state.ahead.clear();
      state.changed = {};
    }
  } closing{*state};
  bool empty = true;
  while (state->advance()) {
    enter(node.body_scope);
    if (node.loop.slot >= 0) variable(node.loop) = Value::of(Kind::kLoop, state);
    assign(node.target, state->current);
    const Flow flow = run(node.body);
    if (flow == Flow::kBreak) break;
    if (flow == Flow::kNormal) empty = false;  // jinja2 runs the else where no pass came to its end
  }
  leave(node.body_scope);
  if (!empty) return Flow::kNormal;
  enter(node.otherwise_scope);
  const Flow flow = run(node.otherwise);
  leave(node.otherwise_scope);
  return flow;
}

namespace {

LoopState& state_of(const Value& loop) { return const_cast<LoopState&>(loop.get<LoopState>()); }

}  // namespace

int64_t loop_length(const Value& loop) { return state_of(loop).length(); }

std::string loop_text(const Value& loop) {
  LoopState& state = state_of(loop);
  return "<LoopContext " + std::to_string(state.index0 + 1) + "/" + std::to_string(state.length()) +
         ">";
}

Value loop_attribute(Meter& meter, const Value& loop, std::string_view name) {
  LoopState& state = state_of(loop);
  if (name == "index") return Value::integer(state.index0 + 1);
  if (name == "index0") return Value::integer(state.index0);
  if (name == "first") return Value::boolean(state.index0 == 0);
  if (name == "last") return Value::boolean(!state.has_next());
  if (name == "length") return Value::integer(state.length());
  if (name == "revindex") return Value::integer(state.length() - state.index0);
  if (name == "revindex0") return Value::integer(state.length() - state.index0 - 1);
  if (name == "depth") return Value::integer(state.depth0 + 1);
  if (name == "depth0") return Value::integer(state.depth0);
  if (name == "previtem") {
    return state.index0 == 0 ? Value::undefined(meter, "there is no previous item")
                             : state.previous;
  }
  if (name == "nextitem") {
    return state.has_next() ? state.ahead.front()
                            : Value::undefined(meter, "there is no next item");
  }
  const Function* method = find_method(loop, name);
  return method ? make_function(meter, *method, loop) : Value();
}

}  // namespace qianli::text::jinja
