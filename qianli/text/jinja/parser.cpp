#include "qianli/text/jinja/parser.h"

#include <algorithm>

namespace qianli::text::jinja {
namespace {

constexpr int kMaxTagNesting = 300;

}  // namespace

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "text";
    case TokenKind::kVariableBegin:
      return "'{{'";
    case TokenKind::kVariableEnd:
      return "'}}'";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kEnd:
      return "the end of the template";
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return "a number";
    case TokenKind::kString:
      return "a string";
    default:
      return "'" + token.text + "'";
  }
}

Parser::Nesting::Nesting(Parser& parser) : parser_(parser) {
  if (parser.nesting_ >= kMaxTagNesting) parser.fail("the template nests too deeply");
  ++parser.nesting_;
}

void Parser::fail_at(int line, const std::string& problem) const {
  throw SyntaxError{problem, line};
}
void Parser::fail(const std::string& problem) const { fail_at(current().line, problem); }

const Token& Parser::advance() {
  const Token& token = tokens_[at_];
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  advance();
  return true;
}

bool Parser::skip_operator(std::string_view symbol) {
  if (!current().is_operator(symbol)) return false;
  advance();
  return true;
}

void Parser::expect(TokenKind kind, const char* what) {
  if (current().kind != kind)
    fail(std::string("expected ") + what + ", got " + describe(current()));
  advance();
}

void Parser::expect_operator(std::string_view symbol) {
  if (!skip_operator(symbol)) {
    fail("expected '" + std::string(symbol) + "', got " + describe(current()));
  }
}

std::string Parser::expect_name(const char* what) {
  if (current().kind != TokenKind::kName) {
    fail(std::string("expected ") + what + ", got " + describe(current()));
  }
  return advance().text;
}

Block Parser::parse_template() { return parse_until({}); }

// Up to a {% of one of these names, which is the current token then; or to the end of the template
// where there are none.
Block Parser::parse_until(Names ends) {
  const Nesting nesting(*this);
  Block block;
  while (current().kind != TokenKind::kEnd) {
    const int line = current().line;
    const TokenKind kind = current().kind;
    if (kind == TokenKind::kData) {
      block.push_back({Text{advance().text}, line});
    } else if (kind == TokenKind::kVariableBegin) {
      advance();
      block.push_back({Print{parse_tuple(true, false)}, line});
      expect(TokenKind::kVariableEnd, "'}}'");
    } else {
      expect(TokenKind::kBlockBegin, "'{%'");
      const auto ends_here = [&](std::string_view name) { return current().is_name(name); };
      if (std::any_of(ends.begin(), ends.end(), ends_here)) return block;
      if (current().is_name("print"))
        parse_print(block);
      else
        block.push_back(parse_statement());
      expect(TokenKind::kBlockEnd, "'%}'");
    }
  }
  if (ends.size() > 0)
    fail("the template ends, and {% " + std::string(*(ends.end() - 1)) + " %} is missing");
  return block;
}

Block Parser::parse_body(Names ends) {
  skip_operator(":");
  expect(TokenKind::kBlockEnd, "'%}'");
  return parse_until(ends);
}

Block Parser::parse_whole_body(Names ends) {
  Block body = parse_body(ends);
  advance();
  return body;
}

Statement Parser::parse_statement() {
  const int line = current().line;
  const std::string tag = expect_name("a tag's name");
  if (tag == "if") return parse_if(line);
  if (tag == "for") return parse_for(line);
  if (tag == "set") return parse_set(line);
  if (tag == "macro") return parse_macro(line);
  if (tag == "call") return parse_call_block(line);
  if (tag == "generation") return parse_generation(line);
  if (tag == "filter") return parse_filter_block(line);
  if (tag == "with") return parse_with(line);
  if (tag == "break" || tag == "continue") return {LoopControl{tag == "break"}, line};
  for (const char* other : {"extends", "block", "include", "import", "from", "autoescape"}) {
    if (tag == other) fail_at(line, "the tag '" + tag + "' is not supported in chat templates");
  }
  fail_at(line, "unknown tag '" + tag + "'");
}

Statement Parser::parse_if(int line) {
  If node;
  while (true) {
    ExpressionPtr condition = parse_tuple(false, false);
    node.branches.emplace_back(std::move(condition), parse_body({"elif", "else", "endif"}));
    if (skip_name("elif")) continue;
    if (skip_name("else"))
      node.otherwise = parse_whole_body({"endif"});
    else
      advance();
    return {std::move(node), line};
  }
}

Statement Parser::parse_for(int line) {
  For node;
  node.target = parse_target(false);
  if (!skip_name("in")) fail("expected 'in', got " + describe(current()));
  node.iterable = parse_tuple(false, false, "recursive");
  if (skip_name("if")) {
    node.condition = parse_expression();
    // A second set of places: jinja2 checks the condition in a function of its own.
    node.condition_target = node.target;
  }
  node.recursive = skip_name("recursive");
  node.body = parse_body({"else", "endfor"});
  if (skip_name("else"))
    node.otherwise = parse_whole_body({"endfor"});
  else
    advance();
  return {std::move(node), line};
}

Statement Parser::parse_set(int line) {
  Target target = parse_target(true);
  if (skip_operator("=")) {
    return {Assign{std::move(target), parse_tuple(true, false)}, line};
  }
  AssignBlock node{std::move(target), parse_filter(nullptr, false), {}, {}};
  node.body = parse_whole_body({"endset"});
  return {std::move(node), line};
}

Target Parser::parse_one_target(bool with_members) {
  const int line = current().line;
  if (skip_operator("(")) {
    const Nesting nesting(*this);
    Target inner = parse_target(false);
    expect_operator(")");
    return inner;
  }
  const std::string name = expect_name("a name to assign to");
  for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
    if (name == constant) fail_at(line, "cannot assign to '" + name + "'");
  }
  if (!with_members || !skip_operator(".")) return {Name{name, {}}};
  return {Target::Member{Name{name, {}}, expect_name("an attribute")}};
}

Target Parser::parse_target(bool with_members) {
  std::vector<Target> targets;
  bool several = false;
  while (true) {
    const Token& token = current();
    if (several && (token.kind == TokenKind::kBlockEnd || token.is_operator(")") ||
                    token.is_operator("=") || token.is_name("in"))) {
      break;
    }
    targets.push_back(parse_one_target(with_members));
    if (!skip_operator(",")) break;
    several = true;
  }
  if (!several) return std::move(targets[0]);
  return {std::move(targets)};
}

std::vector<Parameter> Parser::parse_parameters() {
  std::vector<Parameter> parameters;
  expect_operator("(");
  while (!current().is_operator(")")) {
    if (!parameters.empty()) expect_operator(",");
    Parameter parameter{Name{expect_name("a parameter"), {}}, nullptr};
    if (skip_operator("=")) {
      parameter.otherwise = parse_expression();
    } else if (!parameters.empty() && parameters.back().otherwise) {
      fail("a parameter without a default follows one with a default");
    }
    parameters.push_back(std::move(parameter));
  }
  expect_operator(")");
  return parameters;
}

Statement Parser::parse_macro(int line) {
  auto macro = std::make_shared<Macro>();
  macro->name.name = expect_name("the macro's name");
  macro->parameters = parse_parameters();
  macro->body = parse_whole_body({"endmacro"});
  return {MacroDefinition{std::move(macro)}, line};
}

Statement Parser::parse_call_block(int line) {
  auto body = std::make_shared<Macro>();
  body->name.name = "caller";
  if (current().is_operator("(")) body->parameters = parse_parameters();
  ExpressionPtr call = parse_expression();
  if (!std::holds_alternative<Call>(call->node)) fail_at(line, "expected a call behind 'call'");
  body->body = parse_whole_body({"endcall"});
  return {CallBlock{std::move(body), std::move(call)}, line};
}

Statement Parser::parse_generation(int line) {
  auto body = std::make_shared<Macro>();
  body->body = parse_whole_body({"endgeneration"});
  return {Generation{std::move(body)}, line};
}

Statement Parser::parse_filter_block(int line) {
  FilterBlock node;
  node.filter = parse_filter(nullptr, true);
  node.body = parse_whole_body({"endfilter"});
  return {std::move(node), line};
}

Statement Parser::parse_with(int line) {
  With node;
  while (current().kind != TokenKind::kBlockEnd) {
    if (!node.assignments.empty()) expect_operator(",");
    Target target = parse_target(false);
    expect_operator("=");
    node.assignments.emplace_back(std::move(target), parse_expression());
  }
  node.body = parse_whole_body({"endwith"});
  return {std::move(node), line};
}

void Parser::parse_print(Block& block) {
  const int line = advance().line;
  bool first = true;
  while (current().kind != TokenKind::kBlockEnd) {
    if (!first) expect_operator(",");
    first = false;
    block.push_back({Print{parse_expression()}, line});
  }
}

ParsedTemplate parse(std::string_view source) {
  ParsedTemplate parsed;
  parsed.body = Parser(tokenize(source)).parse_template();
  resolve_names(parsed);
  return parsed;
}

}  // namespace qianli::text::jinja
