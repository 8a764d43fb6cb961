// A template cut into tokens, as jinja2 cuts it with trim_blocks and lstrip_blocks on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qianli::text::jinja {

enum class TokenKind : uint8_t {
  kData,           // text between tags
  kVariableBegin,  // {{
  kVariableEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,  // unescaped
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  int line;          // from 1
  std::string text;  // of names, strings, operators and data
  int64_t integer = 0;
  double real = 0;

  bool is_name(std::string_view name) const { return kind == TokenKind::kName && text == name; }
  bool is_operator(std::string_view symbol) const {
    return kind == TokenKind::kOperator && text == symbol;
  }
};

// `source` is valid UTF-8. Throws SyntaxError.
std::vector<Token> tokenize(std::string_view source);

// What stands at a line that cannot be.
struct SyntaxError {
  std::string problem;
  int line;
};

}  // namespace qianli::text::jinja
