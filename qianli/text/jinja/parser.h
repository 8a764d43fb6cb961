// Tokens to statements and expressions, by the grammar of jinja2 3.1 with the extensions that
// transformers turns on (loop controls, generation). Internal to the parser's two files.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/text/jinja/ast.h"
#include "qianli/text/jinja/token.h"

namespace qianli::text::jinja {

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  Block parse_template();

 private:
  // Statements
  using Names = std::initializer_list<std::string_view>;
  Block parse_until(Names ends);
  Block parse_body(Names ends);        // behind a tag's words: %} statements {% end
  Block parse_whole_body(Names ends);  // and the end's name is taken
  Statement parse_statement();
  Statement parse_if(int line);
  Statement parse_for(int line);
  Statement parse_set(int line);
  Statement parse_macro(int line);
  Statement parse_call_block(int line);
  Statement parse_generation(int line);
  Statement parse_filter_block(int line);
  Statement parse_with(int line);
  void parse_print(Block& block);
  std::vector<Parameter> parse_parameters();
  Target parse_target(bool with_members);
  Target parse_one_target(bool with_members);

  // Expressions. Each level is one of jinja2's.
  ExpressionPtr parse_expression();
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concat();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary(bool with_filter);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_postfix(ExpressionPtr value);
  ExpressionPtr parse_filters_and_tests(ExpressionPtr value);
  ExpressionPtr parse_filter(ExpressionPtr value, bool first_named);
  ExpressionPtr parse_test(ExpressionPtr value);
  ExpressionPtr parse_subscript(ExpressionPtr value);
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_call(ExpressionPtr callee);
  CallArguments parse_arguments();
  // Several expressions with commas between them are a tuple.
  ExpressionPtr parse_tuple(bool with_conditional, bool parenthesized,
                            std::string_view ending_name = {});
  std::string parse_dotted_name();

  // Tokens
  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& advance();
  bool skip_name(std::string_view name);
  bool skip_operator(std::string_view symbol);
  void expect(TokenKind kind, const char* what);
  void expect_operator(std::string_view symbol);
  std::string expect_name(const char* what);
  [[noreturn]] void fail(const std::string& problem) const;
  [[noreturn]] void fail_at(int line, const std::string& problem) const;

  // Every expression knows how deep it is, so that walks over the tree may recurse.
  ExpressionPtr make(int line, decltype(Expression::node) node) const;
  // Counts statements within statements and parentheses within parentheses.
  class Nesting {
   public:
    explicit Nesting(Parser& parser);
    ~Nesting() { --parser_.nesting_; }

   private:
    Parser& parser_;
  };

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
};

std::string describe(const Token& token);

}  // namespace qianli::text::jinja
