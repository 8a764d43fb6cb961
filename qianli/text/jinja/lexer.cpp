// Rules after jinja2 3.1's lexer: which white space goes with a tag, what counts as a name or a
// number, and that an end of tag inside brackets is none.
#include <algorithm>
#include <charconv>
#include <optional>

#include "qianli/text/jinja/strings.h"
#include "qianli/text/jinja/token.h"
#include "qianli/text/unicode.h"

namespace qianli::text::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// \r\n and \r become \n, and one line end at the end of the file goes.
std::string normalize(std::string_view source) {
  std::string text;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r')
      text += source[i];
    else if (i + 1 == source.size() || source[i + 1] != '\n')
      text += '\n';
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(normalize(source)) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) read_text();
    add(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const { throw SyntaxError{problem, line_}; }

  void add(TokenKind kind, std::string text = {}) {
    tokens_.push_back({kind, line_, std::move(text)});
  }

  bool starts_with(std::string_view part, size_t at) const {
    return std::string_view(text_).substr(std::min(at, text_.size()), part.size()) == part;
  }

  // Moves to `end` and counts the lines on the way.
  void advance(size_t end) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<ptrdiff_t>(at_),
                                         text_.begin() + static_cast<ptrdiff_t>(end), '\n'));
    line_starting_ = end > at_ ? text_[end - 1] == '\n' : line_starting_;
    at_ = end;
  }

  size_t skip_space(size_t at) const {
    while (at < text_.size()) {
      const Decoded c = decode_char(text_.data() + at);
      if (!is_space(c.code)) break;
      at += c.size;
    }
    return at;
  }

  // The next {{, {% or {#.
  size_t find_tag(size_t from) const {
    for (size_t at = text_.find('{', from); at != text_.npos; at = text_.find('{', at + 1)) {
      if (at + 1 < text_.size() &&
          std::string_view("{%#").find(text_[at + 1]) != std::string_view::npos) {
        return at;
      }
    }
    return text_.npos;
  }

  // What remains of the text in front of a tag. `sign` is the character behind the tag's opening.
  std::string_view trimmed(std::string_view data, char sign, bool variable) const {
    if (sign == '-') return strip(data, Side::kRight);
    if (sign == '+' || variable) return data;
    const size_t line = data.rfind('\n') + 1;  // npos + 1 == 0
    if (line == 0 && !line_starting_) return data;
    return strip(data.substr(line), Side::kLeft).empty() ? data.substr(0, line) : data;
  }

  void add_data(std::string_view data) {
    if (!data.empty()) add(TokenKind::kData, std::string(data));
  }

  void read_text() {
    const size_t tag = find_tag(at_);
    if (tag == text_.npos) {
      add_data(std::string_view(text_).substr(at_));
      return advance(text_.size());
    }
    const char kind = text_[tag + 1];
    const char sign = tag + 2 < text_.size() ? text_[tag + 2] : 0;
    const bool signed_tag = sign == '-' || sign == '+';
    const std::string_view data = std::string_view(text_).substr(at_, tag - at_);
    add_data(trimmed(data, signed_tag ? sign : 0, kind == '{'));
    advance(tag);
    if (kind == '%') {
      if (const auto raw = raw_begin(tag)) return read_raw(*raw);
    }
    advance(tag + (signed_tag ? 3 : 2));
    if (kind == '#') return read_comment();
    add(kind == '{' ? TokenKind::kVariableBegin : TokenKind::kBlockBegin);
    read_tag(kind == '{');
  }

  // Behind "%}" and the like at `at`; trim_blocks takes one line end with it.
  size_t behind_end(size_t at, char sign) const {
    if (sign == '-') return skip_space(at);
    return sign != '+' && at < text_.size() && text_[at] == '\n' ? at + 1 : at;
  }

  // The end of `{% name %}` whose opening is at `tag`; a line end behind it stays with raw.
  std::optional<size_t> plain_tag(size_t tag, std::string_view name, bool trims) const {
    size_t at = tag + 2;
    if (at < text_.size() && (text_[at] == '-' || text_[at] == '+')) ++at;
    at = skip_space(at);
    if (!starts_with(name, at)) return std::nullopt;
    at = skip_space(at + name.size());
    char sign = 0;
    if (at < text_.size() && (text_[at] == '-' || (text_[at] == '+' && trims))) sign = text_[at++];
    if (!starts_with("%}", at)) return std::nullopt;
    if (!trims && sign != '-') return at + 2;
    return behind_end(at + 2, sign);
  }

  std::optional<size_t> raw_begin(size_t tag) const { return plain_tag(tag, "raw", false); }

  void read_raw(size_t begin) {
    advance(begin);
    for (size_t tag = text_.find("{%", at_); tag != text_.npos; tag = text_.find("{%", tag + 1)) {
      const auto end = plain_tag(tag, "endraw", true);
      if (!end) continue;
      const char sign = tag + 2 < text_.size() ? text_[tag + 2] : 0;
      add_data(trimmed(std::string_view(text_).substr(at_, tag - at_), sign, false));
      return advance(*end);
    }
    fail("missing end of raw directive");
  }

  void read_comment() {
    const size_t end = text_.find("#}", at_);
    if (end == text_.npos && at_ < text_.size()) fail("missing end of comment tag");
    if (end == text_.npos) return;
    const char sign = end > at_ ? text_[end - 1] : 0;
    advance(behind_end(end + 2, sign));
  }

  // The end of the tag here, with its sign.
  std::optional<size_t> tag_end(bool variable) const {
    const std::string_view mark = variable ? "}}" : "%}";
    size_t at = at_;
    char sign = 0;
    if (text_[at] == '-' || (text_[at] == '+' && !variable)) sign = text_[at++];
    if (!starts_with(mark, at)) return std::nullopt;
    at += 2;
    if (variable) return sign == '-' ? skip_space(at) : at;
    return behind_end(at, sign);
  }

  void read_tag(bool variable) {
    std::string brackets;
    while (true) {
      advance(skip_space(at_));
      if (at_ >= text_.size()) return;  // the parser misses the end of the tag
      if (brackets.empty()) {
        if (const auto end = tag_end(variable)) {
          add(variable ? TokenKind::kVariableEnd : TokenKind::kBlockEnd);
          return advance(*end);
        }
      }
      read_token(brackets);
    }
  }

  void read_token(std::string& brackets) {
    const Decoded c = decode_char(text_.data() + at_);
    if (c.code < 0x80 && is_digit(text_[at_])) return read_number();
    if (is_identifier_start(c.code)) return read_name();
    if (c.code == '\'' || c.code == '"') return read_string();
    read_operator(brackets);
  }

  void read_name() {
    size_t end = at_;
    while (end < text_.size()) {
      const Decoded c = decode_char(text_.data() + end);
      if (!is_identifier_part(c.code)) break;
      end += c.size;
    }
    add(TokenKind::kName, text_.substr(at_, end - at_));
    advance(end);
  }

  // Digits that single underscores may part; the end of them.
  size_t digits(size_t at, std::string_view allowed) const {
    const auto is_one = [&](size_t i) {
      return i < text_.size() && allowed.find(text_[i]) != std::string_view::npos;
    };
    while (is_one(at) || (at < text_.size() && text_[at] == '_' && is_one(at + 1))) ++at;
    return at;
  }

  // Where a float that starts here ends, or nothing.
  std::optional<size_t> float_end() const {
    constexpr std::string_view kDecimal = "0123456789";
    if (at_ > 0 && text_[at_ - 1] == '.') return std::nullopt;
    size_t end = digits(at_, kDecimal);
    bool is_float = false;
    if (end + 1 < text_.size() && text_[end] == '.' && is_digit(text_[end + 1])) {
      end = digits(end + 1, kDecimal);
      is_float = true;
    }
    if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      size_t exponent = end + 1;
      if (exponent < text_.size() && (text_[exponent] == '+' || text_[exponent] == '-')) ++exponent;
      if (exponent < text_.size() && is_digit(text_[exponent])) return digits(exponent, kDecimal);
    }
    return is_float ? std::optional(end) : std::nullopt;
  }

  void read_number() {
    if (const auto end = float_end()) {
      std::string number = text_.substr(at_, *end - at_);
      std::erase(number, '_');
      add(TokenKind::kFloat);
      // from_chars reports values beyond a double; strtod gives the infinity Python gives.
      tokens_.back().real = std::strtod(number.c_str(), nullptr);
      return advance(*end);
    }
    int base = 10;
    std::string_view allowed = "0123456789";
    size_t begin = at_;
    if (text_[at_] == '0' && at_ + 1 < text_.size()) {
      const char letter = static_cast<char>(text_[at_ + 1] | 0x20);
      if (letter == 'x') base = 16, allowed = "0123456789abcdefABCDEF";
      if (letter == 'o') base = 8, allowed = "01234567";
      if (letter == 'b') base = 2, allowed = "01";
      if (base != 10)
        begin += 2;
      else
        allowed = "0";  // 007 is three numbers
    }
    read_integer(begin, base, allowed);
  }

  void read_integer(size_t begin, int base, std::string_view allowed) {
    size_t end = digits(begin, allowed);
    if (end == begin) {  // "0x" and no digit: the number 0
      base = 10;
      begin = at_;
      end = at_ + 1;
    }
    std::string number = text_.substr(begin, end - begin);
    std::erase(number, '_');
    add(TokenKind::kInteger);
    const auto [stop, error] =
        std::from_chars(number.data(), number.data() + number.size(), tokens_.back().integer, base);
    if (error != std::errc()) fail("an integer of more than 64 bits");
    advance(end);
  }

  void read_string() {
    const char mark = text_[at_];
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != mark) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) fail(std::string("unexpected char ") + mark);
    add(TokenKind::kString, unescape(std::string_view(text_).substr(at_ + 1, end - at_ - 1)));
    advance(end + 1);
  }

  char32_t hex_escape(std::string_view text, size_t at, size_t size) const {
    uint32_t code = 0;
    const char* begin = text.data() + at;
    if (at + size > text.size()) fail("truncated escape in a string");
    const auto [stop, error] = std::from_chars(begin, begin + size, code, 16);
    if (error != std::errc() || stop != begin + size) fail("truncated escape in a string");
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      fail("an escape in a string that is no character");
    }
    return code;
  }

  // Python's escapes; an unknown one stays as it is.
  std::string unescape(std::string_view text) const {
    constexpr std::string_view kLetters = "\\'\"abfnrtv", kValues = "\\'\"\a\b\f\n\r\t\v";
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\' || i + 1 == text.size()) {
        out += text[i];
        continue;
      }
      const char c = text[++i];
      if (const size_t known = kLetters.find(c); known != kLetters.npos) {
        out += kValues[known];
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t size = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        append_utf8(out, hex_escape(text, i + 1, size));
        i += size;
      } else if (c >= '0' && c <= '7') {
        uint32_t code = 0;
        size_t end = i;
        while (end < text.size() && end < i + 3 && text[end] >= '0' && text[end] <= '7') {
          code = code * 8 + static_cast<uint32_t>(text[end++] - '0');
        }
        append_utf8(out, code);
        i = end - 1;
      } else if (c == 'N') {
        fail("a character by its name (\\N{...}) is not supported");
      } else if (c != '\n') {  // a line end behind a backslash goes with it
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  void read_operator(std::string& brackets) {
    constexpr std::string_view kTwo[] = {"//", "**", "==", "!=", ">=", "<="};
    std::string symbol(1, text_[at_]);
    for (const std::string_view two : kTwo) {
      if (starts_with(two, at_)) symbol = two;
    }
    if (symbol.size() == 1 &&
        std::string_view("+-/*%~[](){}><=.:|,;").find(symbol[0]) == std::string_view::npos) {
      fail("unexpected character '" + text_.substr(at_, character_size(text_, at_)) + "'");
    }
    const char c = symbol[0];
    if (c == '(') brackets += ')';
    if (c == '[') brackets += ']';
    if (c == '{') brackets += '}';
    if (c == ')' || c == ']' || c == '}') {
      if (brackets.empty() || brackets.back() != c) fail("unexpected '" + symbol + "'");
      brackets.pop_back();
    }
    add(TokenKind::kOperator, symbol);
    advance(at_ + symbol.size());
  }

  std::string text_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace qianli::text::jinja
