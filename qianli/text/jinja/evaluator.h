// Runs a parsed template. Internal to template.cpp and the evaluator's own files.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "qianli/text/jinja/ast.h"
#include "qianli/text/jinja/runtime.h"

namespace qianli::text::jinja {

// The variables of one call of a function.
struct Activation {
  Activation(Meter& meter, const FunctionFrame& frame, std::shared_ptr<Activation> parent);
  Charge charge;
  std::vector<Value> slots;
  std::shared_ptr<Activation> outer;  // of the function around it; null for the template
};

struct MacroClosure : Object {
  MacroClosure(Meter& meter, const Macro& what, std::shared_ptr<Activation> where);
  const Macro* macro;
  std::shared_ptr<Activation> outer;
};

// The variable `loop`. Items are taken one ahead where a template asks for the next one.
struct LoopState : Object {
  LoopState(Meter& meter, Value iterable, std::function<bool(Value&)> pull, int depth0);

  bool advance();
  bool has_next();
  int64_t length();

  Value iterable;                              // missing where a condition picks from it
  std::function<bool(Value&)> pull;            // the next item, or false
  std::function<Value(const Value&)> recurse;  // of a recursive loop
  std::deque<Value> ahead;
  Value current, previous, changed;
  int64_t index0 = -1;
  int depth0;
  std::optional<int64_t> known_length;
};

struct ByteRange {
  size_t begin, end;
};

class Evaluator : public Runtime {
 public:
  // `variables`: what the caller passes, by name.
  Evaluator(Meter& meter, const std::tm& now, const DictObject& variables);
  ~Evaluator() override;

  std::string render(const ParsedTemplate& parsed);
  // What stands in {% generation %} blocks.
  const std::vector<ByteRange>& generations() const { return generations_; }
  bool nested_generation() const { return nested_generation_; }
  int line() const { return line_; }

  Value call(const Value& callee, Arguments arguments) override;

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  // Collects what a block prints, and counts it.
  class Capture;
  // Makes another function's variables the current ones.
  class Enter;

  // Statements (evaluator.cpp)
  Flow run(const Block& block);
  Flow run(const Text& node);
  Flow run(const Print& node);
  Flow run(const If& node);
  Flow run(const Assign& node);
  Flow run(const AssignBlock& node);
  Flow run(const MacroDefinition& node);
  Flow run(const CallBlock& node);
  Flow run(const Generation& node);
  Flow run(const FilterBlock& node);
  Flow run(const With& node);
  Flow run(const LoopControl& node);
  void print(const Value& value);
  void enter(const Scope& scope);
  void leave(const Scope& scope);
  void assign(const Target& target, Value value);
  void unpack(const std::vector<Target>& targets, const Value& value);

  // Loops (evaluator_loop.cpp)
  Flow run(const For& node);
  Flow run_items(const For& node, const Value& iterable, int depth0);
  Value run_recursive(const For& node, const Value& iterable, int depth0,
                      const std::shared_ptr<Activation>& outer);
  bool passes(const For& node, const Value& item);

  // Calls (evaluator_call.cpp)
  Value call_macro(const MacroClosure& closure, Arguments arguments);
  void bind_parameters(const MacroClosure& closure, Arguments& arguments);
  void bind_specials(const Macro& macro, Arguments& arguments, bool found_caller);
  Value make_macro(const Macro& macro);
  Arguments evaluate(const CallArguments& arguments);
  std::shared_ptr<Activation> activate(const FunctionFrame& frame,
                                       std::shared_ptr<Activation> outer);

  // Expressions (evaluator_expression.cpp)
  Value evaluate(const Expression& expression);
  Value evaluate(const ExpressionPtr& expression) { return evaluate(*expression); }
  Value evaluate_or_missing(const ExpressionPtr& expression) {
    return expression ? evaluate(*expression) : Value();
  }
  Value evaluate(const LiteralText& node);
  Value evaluate(const LiteralInteger& node);
  Value evaluate(const LiteralReal& node);
  Value evaluate(const LiteralConstant& node);
  Value evaluate(const Name& node);
  Value evaluate(const ListExpression& node);
  Value evaluate(const DictExpression& node);
  Value evaluate(const Unary& node);
  Value evaluate(const Binary& node);
  Value evaluate(const Logical& node);
  Value evaluate(const Concat& node);
  Value evaluate(const Compare& node);
  Value evaluate(const Conditional& node);
  Value evaluate(const Attribute& node);
  Value evaluate(const Item& node);
  Value evaluate(const Slice& node);
  Value evaluate(const Call& node);
  Value evaluate(const Filter& node);
  Value evaluate(const Test& node);
  Value& variable(const Place& place);
  Value from_context(const std::string& name);

  const DictObject& variables_;
  std::shared_ptr<Activation> activation_;
  std::vector<std::shared_ptr<Activation>> kept_;  // functions within may still use these
  Capture* output_ = nullptr;
  Capture* root_ = nullptr;
  const Value* block_text_ = nullptr;  // for a filter without a value
  std::vector<ByteRange> generations_;
  bool nested_generation_ = false;
  int line_ = 0;
};

// Collects what a block prints.
class Evaluator::Capture {
 public:
  explicit Capture(Evaluator& evaluator)
      : evaluator_(evaluator), outer_(evaluator.output_), charge_(evaluator.meter(), 0) {
    evaluator.output_ = this;
  }
  ~Capture() { evaluator_.output_ = outer_; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  void append(std::string_view text) {
    evaluator_.meter().work(text.size());
    charge_.add(text.size());
    text_ += text;
  }
  size_t size() const { return text_.size(); }
  std::string take() { return std::move(text_); }
  Value value() { return Value::string(evaluator_.meter(), std::move(text_)); }

 private:
  Evaluator& evaluator_;
  Capture* outer_;
  Charge charge_;
  std::string text_;
};

class Evaluator::Enter {
 public:
  Enter(Evaluator& evaluator, std::shared_ptr<Activation> activation)
      : evaluator_(evaluator), before_(std::move(evaluator.activation_)) {
    evaluator.activation_ = std::move(activation);
  }
  ~Enter() { evaluator_.activation_ = std::move(before_); }
  Enter(const Enter&) = delete;
  Enter& operator=(const Enter&) = delete;

 private:
  Evaluator& evaluator_;
  std::shared_ptr<Activation> before_;
};

}  // namespace qianli::text::jinja
