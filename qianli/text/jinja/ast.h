// A parsed template. Names carry the place of their variable, which resolve.cpp fills in.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "qianli/text/jinja/runtime.h"

namespace qianli::text::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;
struct Statement;
using Block = std::vector<Statement>;

// A variable of the function `hops` functions further out.
struct Place {
  int hops = 0;
  int slot = -1;
};

// How the variables of a scope start (resolve.cpp).
struct Load {
  enum class From { kNothing, kContext, kPlace };
  int slot;
  From from;
  std::string name;  // kContext
  Place place;       // kPlace
};

// A scope within a function: what starts when it is entered, and what ends with it.
struct Scope {
  std::vector<Load> loads;
  std::vector<int> slots;  // unset when the scope is left
};

// The unit that has variables of its own at run time: the template, a macro, a recursive loop.
struct FunctionFrame {
  int num_slots = 0;
  bool captured = false;  // functions within keep its variables alive
};

struct LiteralText {
  std::string text;
};
struct LiteralInteger {
  int64_t value;
};
struct LiteralReal {
  double value;
};
struct LiteralConstant {
  std::optional<bool> value;  // none where empty
};
struct Name {
  std::string name;
  Place place;
};
struct ListExpression {
  std::vector<ExpressionPtr> items;
  bool tuple;
};
struct DictExpression {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items;
};
struct Unary {
  enum class Operator { kNot, kNegate, kPlus } op;
  ExpressionPtr operand;
};
struct Binary {
  BinaryOperator op;
  ExpressionPtr left, right;
};
struct Logical {
  bool is_and;
  ExpressionPtr left, right;
};
struct Concat {
  std::vector<ExpressionPtr> parts;
};
struct Compare {  // a < b < c
  ExpressionPtr first;
  std::vector<std::pair<CompareOperator, ExpressionPtr>> rest;
};
struct Conditional {
  ExpressionPtr condition, value, otherwise;  // otherwise may be null
};
struct Attribute {
  ExpressionPtr object;
  std::string name;
};
struct Item {
  ExpressionPtr object, key;
};
struct Slice {
  ExpressionPtr object, start, stop, step;  // bounds may be null
};
struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr more_positional, more_named;  // *list, **dict; may be null
};
struct Call {
  ExpressionPtr callee;
  CallArguments arguments;
};
struct Filter {
  ExpressionPtr value;  // null: the text of the block that the filter stands in
  std::string name;
  CallArguments arguments;
};
struct Test {
  ExpressionPtr value;
  std::string name;
  CallArguments arguments;
};

struct Expression {
  std::variant<LiteralText, LiteralInteger, LiteralReal, LiteralConstant, Name, ListExpression,
               DictExpression, Unary, Binary, Logical, Concat, Compare, Conditional, Attribute,
               Item, Slice, Call, Filter, Test>
      node;
  int depth = 1;  // expressions below and including this one, bounded by the parser
};

// Calls visit(child) for each direct child of an expression, in the order of the text.
template <class Visit>
void for_each_child(Expression& expression, const Visit& visit);

// What is assigned to: a name, namespace.attribute, or several of these.
struct Target {
  struct Member {
    Name space;
    std::string attribute;
  };
  std::variant<Name, Member, std::vector<Target>> node;
};

struct Text {
  std::string text;
};
struct Print {
  ExpressionPtr value;
};
struct If {
  std::vector<std::pair<ExpressionPtr, Block>> branches;
  Block otherwise;
};
struct For {
  Target target;
  ExpressionPtr iterable, condition;  // condition may be null
  // The target once more, with the places it has while the condition is checked.
  std::optional<Target> condition_target;
  bool recursive = false;
  Block body, otherwise;

  Scope body_scope, condition_scope, otherwise_scope;
  Place loop;              // slot -1: the body does not use `loop`
  FunctionFrame function;  // of a recursive loop
};
struct Assign {
  Target target;
  ExpressionPtr value;
};
struct AssignBlock {
  Target target;
  ExpressionPtr filter;  // may be null
  Block body;
  Scope scope;
};
struct Parameter {
  Name name;
  ExpressionPtr otherwise;  // may be null
};
struct Macro {
  Name name;  // unused by the blocks of call and generation
  std::vector<Parameter> parameters;
  Block body;

  Scope scope;
  FunctionFrame function;
  int caller_slot = -1, named_slot = -1, positional_slot = -1;  // caller, kwargs, varargs
};
struct CallBlock {
  std::shared_ptr<Macro> body;
  ExpressionPtr call;
};
struct Generation {
  std::shared_ptr<Macro> body;
};
struct FilterBlock {
  ExpressionPtr filter;
  Block body;
  Scope scope;
};
struct With {
  std::vector<std::pair<Target, ExpressionPtr>> assignments;
  Block body;
  Scope scope;
};
struct MacroDefinition {
  std::shared_ptr<Macro> macro;
};
struct LoopControl {
  bool is_break;
};

struct Statement {
  std::variant<Text, Print, If, For, Assign, AssignBlock, MacroDefinition, CallBlock, Generation,
               FilterBlock, With, LoopControl>
      node;
  int line = 0;
};

struct ParsedTemplate {
  Block body;
  Scope scope;
  FunctionFrame function;
};

namespace detail {

template <class Visit>
struct ChildVisitor {
  const Visit& visit;
  void one(const ExpressionPtr& child) const {
    if (child) visit(*child);
  }
  void all(const std::vector<ExpressionPtr>& children) const {
    for (const auto& child : children) one(child);
  }
  void all(const CallArguments& arguments) const {
    all(arguments.positional);
    for (const auto& [name, value] : arguments.named) one(value);
    one(arguments.more_positional);
    one(arguments.more_named);
  }
  void operator()(const LiteralText&) const {}
  void operator()(const LiteralInteger&) const {}
  void operator()(const LiteralReal&) const {}
  void operator()(const LiteralConstant&) const {}
  void operator()(const Name&) const {}
  void operator()(const ListExpression& node) const { all(node.items); }
  void operator()(const DictExpression& node) const {
    for (const auto& [key, value] : node.items) one(key), one(value);
  }
  void operator()(const Unary& node) const { one(node.operand); }
  void operator()(const Binary& node) const { one(node.left), one(node.right); }
  void operator()(const Logical& node) const { one(node.left), one(node.right); }
  void operator()(const Concat& node) const { all(node.parts); }
  void operator()(const Compare& node) const {
    one(node.first);
    for (const auto& [op, value] : node.rest) one(value);
  }
  void operator()(const Conditional& node) const {
    one(node.condition), one(node.value), one(node.otherwise);
  }
  void operator()(const Attribute& node) const { one(node.object); }
  void operator()(const Item& node) const { one(node.object), one(node.key); }
  void operator()(const Slice& node) const {
    one(node.object), one(node.start), one(node.stop), one(node.step);
  }
  void operator()(const Call& node) const { one(node.callee), all(node.arguments); }
  void operator()(const Filter& node) const { one(node.value), all(node.arguments); }
  void operator()(const Test& node) const { one(node.value), all(node.arguments); }
};

}  // namespace detail

template <class Visit>
void for_each_child(Expression& expression, const Visit& visit) {
  std::visit(detail::ChildVisitor<Visit>{visit}, expression.node);
}

// Throws SyntaxError.
ParsedTemplate parse(std::string_view source);
// Gives every name its place, by jinja2's rules of scope. Called by parse.
void resolve_names(ParsedTemplate& parsed);

}  // namespace qianli::text::jinja
