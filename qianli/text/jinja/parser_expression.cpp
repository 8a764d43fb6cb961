#include <algorithm>

#include "qianli/text/jinja/parser.h"

namespace qianli::text::jinja {
namespace {

// Python itself refuses more parentheses than this within each other.
constexpr int kMaxDepth = 200;

}  // namespace

ExpressionPtr Parser::make(int line, decltype(Expression::node) node) const {
  auto expression = std::make_unique<Expression>();
  expression->node = std::move(node);
  int below = 0;
  for_each_child(*expression, [&](Expression& child) { below = std::max(below, child.depth); });
  expression->depth = below + 1;
  if (expression->depth > kMaxDepth) fail_at(line, "an expression nests too deeply");
  return expression;
}

ExpressionPtr Parser::parse_expression() {
  const Nesting nesting(*this);
  const int line = current().line;
  ExpressionPtr value = parse_or();
  while (skip_name("if")) {
    ExpressionPtr condition = parse_or();
    ExpressionPtr otherwise;
    if (skip_name("else")) otherwise = parse_expression();
    value = make(line, Conditional{std::move(condition), std::move(value), std::move(otherwise)});
  }
  return value;
}

ExpressionPtr Parser::parse_or() {
  const int line = current().line;
  ExpressionPtr left = parse_and();
  while (skip_name("or")) {
    ExpressionPtr right = parse_and();
    left = make(line, Logical{false, std::move(left), std::move(right)});
  }
  return left;
}

ExpressionPtr Parser::parse_and() {
  const int line = current().line;
  ExpressionPtr left = parse_not();
  while (skip_name("and")) {
    ExpressionPtr right = parse_not();
    left = make(line, Logical{true, std::move(left), std::move(right)});
  }
  return left;
}

ExpressionPtr Parser::parse_not() {
  const int line = current().line;
  if (!skip_name("not")) return parse_compare();
  const Nesting nesting(*this);
  return make(line, Unary{Unary::Operator::kNot, parse_not()});
}

ExpressionPtr Parser::parse_compare() {
  constexpr std::pair<std::string_view, CompareOperator> kSymbols[] = {
      {"==", CompareOperator::kEqual},  {"!=", CompareOperator::kNotEqual},
      {"<", CompareOperator::kLess},    {"<=", CompareOperator::kLessEqual},
      {">", CompareOperator::kGreater}, {">=", CompareOperator::kGreaterEqual}};
  const int line = current().line;
  ExpressionPtr first = parse_sum();
  std::vector<std::pair<CompareOperator, ExpressionPtr>> rest;
  while (true) {
    const auto* symbol =
        std::find_if(std::begin(kSymbols), std::end(kSymbols),
                     [&](const auto& entry) { return current().is_operator(entry.first); });
    if (symbol != std::end(kSymbols)) {
      advance();
      rest.emplace_back(symbol->second, parse_sum());
    } else if (skip_name("in")) {
      rest.emplace_back(CompareOperator::kIn, parse_sum());
    } else if (current().is_name("not") && ahead().is_name("in")) {
      advance();
      advance();
      rest.emplace_back(CompareOperator::kNotIn, parse_sum());
    } else {
      break;
    }
  }
  return rest.empty() ? std::move(first) : make(line, Compare{std::move(first), std::move(rest)});
}

ExpressionPtr Parser::parse_sum() {
  const int line = current().line;
  ExpressionPtr left = parse_concat();
  while (current().is_operator("+") || current().is_operator("-")) {
    const bool adds = advance().text == "+";
    ExpressionPtr right = parse_concat();
    left = make(line, Binary{adds ? BinaryOperator::kAdd : BinaryOperator::kSubtract,
                             std::move(left), std::move(right)});
  }
  return left;
}

ExpressionPtr Parser::parse_concat() {
  const int line = current().line;
  std::vector<ExpressionPtr> parts;
  parts.push_back(parse_product());
  while (skip_operator("~")) parts.push_back(parse_product());
  return parts.size() == 1 ? std::move(parts[0]) : make(line, Concat{std::move(parts)});
}

ExpressionPtr Parser::parse_product() {
  constexpr std::pair<std::string_view, BinaryOperator> kSymbols[] = {
      {"*", BinaryOperator::kMultiply},
      {"/", BinaryOperator::kDivide},
      {"//", BinaryOperator::kFloorDivide},
      {"%", BinaryOperator::kModulo}};
  const int line = current().line;
  ExpressionPtr left = parse_power();
  while (true) {
    const auto* symbol =
        std::find_if(std::begin(kSymbols), std::end(kSymbols),
                     [&](const auto& entry) { return current().is_operator(entry.first); });
    if (symbol == std::end(kSymbols)) return left;
    advance();
    ExpressionPtr right = parse_power();
    left = make(line, Binary{symbol->second, std::move(left), std::move(right)});
  }
}

// jinja2's ** groups from the left, and a minus in front binds closer than it; Python's does not.
ExpressionPtr Parser::parse_power() {
  const int line = current().line;
  ExpressionPtr left = parse_unary(true);
  while (skip_operator("**")) {
    ExpressionPtr right = parse_unary(true);
    left = make(line, Binary{BinaryOperator::kPower, std::move(left), std::move(right)});
  }
  return left;
}

ExpressionPtr Parser::parse_unary(bool with_filter) {
  const Nesting nesting(*this);
  const int line = current().line;
  ExpressionPtr value;
  if (skip_operator("-"))
    value = make(line, Unary{Unary::Operator::kNegate, parse_unary(false)});
  else if (skip_operator("+"))
    value = make(line, Unary{Unary::Operator::kPlus, parse_unary(false)});
  else
    value = parse_primary();
  value = parse_postfix(std::move(value));
  return with_filter ? parse_filters_and_tests(std::move(value)) : std::move(value);
}

ExpressionPtr Parser::parse_primary() {
  const Token token = current();
  switch (token.kind) {
    case TokenKind::kName: {
      advance();
      if (token.text == "true" || token.text == "True")
        return make(token.line, LiteralConstant{true});
      if (token.text == "false" || token.text == "False")
        return make(token.line, LiteralConstant{false});
      if (token.text == "none" || token.text == "None") return make(token.line, LiteralConstant{});
      return make(token.line, Name{token.text, {}});
    }
    case TokenKind::kString: {
      std::string text;  // strings side by side are one
      while (current().kind == TokenKind::kString) text += advance().text;
      return make(token.line, LiteralText{std::move(text)});
    }
    case TokenKind::kInteger:
      advance();
      return make(token.line, LiteralInteger{token.integer});
    case TokenKind::kFloat:
      advance();
      return make(token.line, LiteralReal{token.real});
    default:
      break;
  }
  if (token.is_operator("[")) return parse_list();
  if (token.is_operator("{")) return parse_dict();
  if (!skip_operator("(")) fail("unexpected " + describe(token));
  ExpressionPtr inner = parse_tuple(true, true);
  expect_operator(")");
  return inner;
}

ExpressionPtr Parser::parse_tuple(bool with_conditional, bool parenthesized,
                                  std::string_view ending_name) {
  const int line = current().line;
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  while (true) {
    const Token& token = current();
    if (token.kind == TokenKind::kVariableEnd || token.kind == TokenKind::kBlockEnd ||
        token.is_operator(")") || (!ending_name.empty() && token.is_name(ending_name))) {
      break;
    }
    items.push_back(with_conditional ? parse_expression() : parse_or());
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && items.size() == 1) return std::move(items[0]);
  if (!is_tuple && !parenthesized) fail("expected an expression, got " + describe(current()));
  return make(line, ListExpression{std::move(items), true});
}

ExpressionPtr Parser::parse_list() {
  const int line = advance().line;
  std::vector<ExpressionPtr> items;
  while (!current().is_operator("]")) {
    if (!items.empty()) expect_operator(",");
    if (current().is_operator("]")) break;
    items.push_back(parse_expression());
  }
  expect_operator("]");
  return make(line, ListExpression{std::move(items), false});
}

ExpressionPtr Parser::parse_dict() {
  const int line = advance().line;
  DictExpression dict;
  while (!current().is_operator("}")) {
    if (!dict.items.empty()) expect_operator(",");
    if (current().is_operator("}")) break;
    ExpressionPtr key = parse_expression();
    expect_operator(":");
    dict.items.emplace_back(std::move(key), parse_expression());
  }
  expect_operator("}");
  return make(line, std::move(dict));
}

}  // namespace qianli::text::jinja
