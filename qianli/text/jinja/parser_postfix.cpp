// What stands behind a value: attributes, items, calls, filters and tests.
#include "qianli/text/jinja/parser.h"

namespace qianli::text::jinja {

ExpressionPtr Parser::parse_postfix(ExpressionPtr value) {
  while (true) {
    if (current().is_operator(".") || current().is_operator("["))
      value = parse_subscript(std::move(value));
    else if (current().is_operator("("))
      value = parse_call(std::move(value));
    else
      return value;
  }
}

ExpressionPtr Parser::parse_filters_and_tests(ExpressionPtr value) {
  while (true) {
    if (skip_operator("|"))
      value = parse_filter(std::move(value), true);
    else if (current().is_name("is"))
      value = parse_test(std::move(value));
    else if (current().is_operator("("))
      value = parse_call(std::move(value));
    else
      return value;
  }
}

std::string Parser::parse_dotted_name() {
  std::string name = expect_name("a name");
  while (skip_operator(".")) name += "." + expect_name("a name");
  return name;
}

// Behind the bar (`first_named`), or a row of filters that begins with its bar.
ExpressionPtr Parser::parse_filter(ExpressionPtr value, bool first_named) {
  while (first_named || skip_operator("|")) {
    const int line = current().line;
    first_named = false;
    Filter filter{std::move(value), parse_dotted_name(), {}};
    if (current().is_operator("(")) filter.arguments = parse_arguments();
    value = make(line, std::move(filter));
  }
  return value;
}

ExpressionPtr Parser::parse_test(ExpressionPtr value) {
  const int line = advance().line;
  const bool negated = skip_name("not");
  Test test{std::move(value), parse_dotted_name(), {}};
  const Token& next = current();
  const bool bare = next.kind == TokenKind::kString || next.kind == TokenKind::kInteger ||
                    next.kind == TokenKind::kFloat || next.is_operator("[") ||
                    next.is_operator("{") ||
                    (next.kind == TokenKind::kName && !next.is_name("else") &&
                     !next.is_name("or") && !next.is_name("and"));
  if (next.is_operator("(")) {
    test.arguments = parse_arguments();
  } else if (bare) {
    if (next.is_name("is")) fail("tests with 'is' cannot follow each other");
    test.arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  ExpressionPtr result = make(line, std::move(test));
  return negated ? make(line, Unary{Unary::Operator::kNot, std::move(result)}) : std::move(result);
}

ExpressionPtr Parser::parse_subscript(ExpressionPtr value) {
  const int line = current().line;
  if (skip_operator(".")) {
    const Token token = advance();
    if (token.kind == TokenKind::kName) return make(line, Attribute{std::move(value), token.text});
    if (token.kind != TokenKind::kInteger)
      fail_at(token.line, "expected a name or a number behind '.'");
    return make(line, Item{std::move(value), make(line, LiteralInteger{token.integer})});
  }
  advance();  // [
  const auto part = [&]() -> ExpressionPtr {
    const bool absent =
        current().is_operator(":") || current().is_operator("]") || current().is_operator(",");
    return absent ? nullptr : parse_expression();
  };
  ExpressionPtr first = part();
  std::vector<ExpressionPtr> keys;
  if (skip_operator(":")) {
    ExpressionPtr stop = part(), step;
    if (skip_operator(":")) step = part();
    expect_operator("]");
    return make(line, Slice{std::move(value), std::move(first), std::move(stop), std::move(step)});
  }
  if (!first) fail("expected an index, got " + describe(current()));
  keys.push_back(std::move(first));
  while (skip_operator(",")) keys.push_back(parse_expression());
  expect_operator("]");
  ExpressionPtr key =
      keys.size() == 1 ? std::move(keys[0]) : make(line, ListExpression{std::move(keys), true});
  return make(line, Item{std::move(value), std::move(key)});
}

ExpressionPtr Parser::parse_call(ExpressionPtr callee) {
  const int line = current().line;
  return make(line, Call{std::move(callee), parse_arguments()});
}

CallArguments Parser::parse_arguments() {
  const auto ensure = [&](bool holds) {
    if (!holds) fail("the arguments of this call are in a wrong order");
  };
  expect_operator("(");
  CallArguments arguments;
  bool first = true;
  while (!current().is_operator(")")) {
    if (!first) expect_operator(",");
    if (!first && current().is_operator(")")) break;
    first = false;
    if (skip_operator("*")) {
      ensure(!arguments.more_positional && !arguments.more_named);
      arguments.more_positional = parse_expression();
    } else if (skip_operator("**")) {
      ensure(!arguments.more_named);
      arguments.more_named = parse_expression();
    } else if (current().kind == TokenKind::kName && ahead().is_operator("=")) {
      ensure(!arguments.more_named);
      std::string name = advance().text;
      advance();
      arguments.named.emplace_back(std::move(name), parse_expression());
    } else {
      ensure(!arguments.more_positional && !arguments.more_named && arguments.named.empty());
      arguments.positional.push_back(parse_expression());
    }
  }
  expect_operator(")");
  return arguments;
}

}  // namespace qianli::text::jinja
