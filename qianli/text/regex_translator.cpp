#include "qianli/text/regex_translator.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/text/regex_class.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

constexpr int kMaxDepth = 100;  // of groups and classes; PCRE2 has limits of its own

bool is_letter_or_digit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_hexadecimal(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

// Signs are written so that they stand for themselves, in brackets and out of them.
std::string literal(std::string_view character) {
  const char c = character[0];
  const bool plain = static_cast<unsigned char>(c) >= 0x80 || static_cast<unsigned char>(c) <= ' ';
  return (plain || is_letter_or_digit(c) ? "" : "\\") + std::string(character);
}

struct Options {
  bool dot_matches_newline = false;  // m of Ruby's syntax
  bool extended = false;             // x: blanks and comments are left out
  bool ignores_case = false;         // i
};

// A part of an expression that a repetition takes whole.
struct Atom {
  std::string text;
  bool repeatable = true;
};

struct Repetition {
  std::string text;
  bool lazy = false;
};

class Translator {
 public:
  Translator(const std::string& expression, RegexSyntax syntax, const std::string& where)
      : in_(expression), syntax_(syntax), where_(where) {}

  std::string run() {
    std::string out = alternatives({});
    if (at_ < in_.size()) refuse("a ) without (");
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& problem) const { refuse_regex(where_, problem); }
  bool ruby() const { return syntax_ == RegexSyntax::kOniguruma; }
  bool ends() const { return at_ >= in_.size(); }
  bool sees(std::string_view text) const { return in_.compare(at_, text.size(), text) == 0; }
  bool take(std::string_view text) {
    if (!sees(text)) return false;
    at_ += text.size();
    return true;
  }
  std::string_view take_character() {
    const size_t size = std::min<size_t>(decode_char(&in_[at_]).size, in_.size() - at_);
    at_ += size;
    return std::string_view(in_).substr(at_ - size, size);
  }

  // Up to the ) of the group, or to the end.
  std::string alternatives(const Options& options) {
    if (++depth_ > kMaxDepth) refuse("groups nested too deep");
    std::string out = branch(options);
    while (take("|")) out += "|" + branch(options);
    --depth_;
    return out;
  }

  std::string branch(const Options& options) {
    std::string out;
    while (!ends() && in_[at_] != '|' && in_[at_] != ')') {
      if (skips_blank(options)) continue;
      if (const auto rest = options_for_the_rest(options)) return out + *rest;
      out += repeated(atom(options), options);
    }
    return out;
  }

  bool skips_blank(const Options& options) {
    if (!options.extended) return false;
    if (in_[at_] == '#') {
      at_ = std::min(in_.find('\n', at_), in_.size());
      return true;
    }
    if (in_[at_] != ' ' && !(in_[at_] >= '\t' && in_[at_] <= '\r')) return false;
    ++at_;
    return true;
  }

  // ---- repetitions

  std::string repeated(Atom atom, const Options& options) {
    bool before = false, lazy = false;
    for (;;) {
      while (!ends() && skips_blank(options)) continue;
      const auto next = repetition();
      if (!next) return atom.text;
      if (!atom.repeatable) refuse("a repetition of a place");
      // A repetition of a repetition; Oniguruma has rules of its own for lazy ones.
      if (before && (lazy || next->lazy)) refuse("a repetition of a lazy repetition");
      if (before) atom.text = "(?:" + atom.text + ")";
      atom.text += next->text;
      lazy = next->lazy;
      before = true;
    }
  }

  std::optional<Repetition> repetition() {
    if (ends()) return std::nullopt;
    const char c = in_[at_];
    if (c == '{') return interval();
    if (c != '*' && c != '+' && c != '?') return std::nullopt;
    ++at_;
    if (take("?")) return Repetition{std::string{c, '?'}, true};
    if (take("+")) return Repetition{std::string{c, '+'}};
    return Repetition{std::string{c}};
  }

  std::string digits() {
    std::string out;
    while (!ends() && in_[at_] >= '0' && in_[at_] <= '9') out += in_[at_++];
    return out;
  }

  // {n}, {n,}, {n,m}, {,m}; anything else in braces stands for itself.
  std::optional<Repetition> interval() {
    const size_t begin = at_++;
    const std::string low = digits();
    const bool comma = take(",");
    const std::string high = comma ? digits() : low;
    if ((low.empty() && high.empty()) || !take("}")) {
      at_ = begin;
      return std::nullopt;
    }
    if (low.empty() && !ruby()) refuse("a repetition {,n}");
    if (low.size() > 5 || high.size() > 5) refuse("a repetition of 100000 times or more");
    if (!high.empty() && !low.empty() && std::stoi(low) > std::stoi(high)) {
      refuse("a repetition whose bounds are swapped");
    }
    std::string text = fmt::format("{{{}{}}}", low.empty() ? "0" : low, comma ? "," + high : "");
    if (take("?")) {
      // In Ruby's syntax x{n}? is (?:x{n})?
      if (!comma && ruby()) refuse("a repetition {n}?");
      return Repetition{text + "?", true};
    }
    // In Ruby's syntax the + repeats the repetition.
    if (!ruby() && take("+")) text += "+";
    return Repetition{text};
  }

  // ---- groups

  Atom atom(const Options& options) {
    ignores_case_ = options.ignores_case;
    const char c = in_[at_];
    if (c == '(') return group(options);
    if (c == '[') return {char_class()};
    if (c == '\\') return escape();
    if (c == '*' || c == '+' || c == '?' || (c == '{' && interval())) {
      refuse("a repetition of nothing");
    }
    if (c == '^' || c == '$') {
      if (!ruby()) refuse(fmt::format("the anchor {}", c));
      ++at_;
      return {fmt::format("(?m:{})", c), false};
    }
    if (take(".")) return {options.dot_matches_newline ? "(?s:.)" : "."};
    return {literal(take_character())};
  }

  Atom group(const Options& options) {
    const size_t begin = at_++;
    if (sees("*")) refuse("a (* verb");
    std::string start = "(?:";
    Options inner = options;
    bool repeatable = true;
    if (sees("?")) {
      if (take("?>")) {
        start = "(?>";
      } else if (take("?=") || take("?!") || take("?<=") || take("?<!")) {
        start = in_.substr(begin, at_ - begin);
        repeatable = false;
      } else if (!take("?:")) {
        start = flags(inner);
        if (!take(":")) refuse(fmt::format("the group '{}'", in_.substr(begin, 4)));
      }
    }
    std::string text = start + alternatives(inner) + ")";
    if (!take(")")) refuse("a ( without )");
    return {std::move(text), repeatable};
  }

  // "?im-x" behind "("; returns how a group with them begins.
  std::string flags(Options& options) {
    ++at_;
    bool on = true;
    std::string start = "(?:";
    for (; !ends(); ++at_) {
      const char c = in_[at_];
      if (c == '-' && on) {
        on = false;
      } else if (c == 'i') {
        start = on ? "(?i:" : "(?-i:";
        options.ignores_case = on;
      } else if (c == 'm' && ruby()) {
        options.dot_matches_newline = on;
      } else if (c == 'x' && ruby()) {
        options.extended = on;
      } else {
        break;
      }
    }
    return start;
  }

  // (?i) holds up to the end of the group, and "|" behind it divides only that: a(?i)b|c is
  // a(?i:b|c). In fancy-regex it holds for later branches, too: only the first place is read.
  std::optional<std::string> options_for_the_rest(Options options) {
    if (!sees("(?")) return std::nullopt;
    const size_t begin = at_++;
    const std::string start = flags(options);
    if (at_ == begin + 2 || !take(")")) {
      at_ = begin;
      return std::nullopt;
    }
    if (!ruby() && begin > 0) refuse("options within an expression");
    return start + alternatives(options) + ")";
  }

  // ---- characters

  // The members of \s \d \w \h \p{..}; `negated` for \S \D \W \H \P{..} and \p{^..}.
  std::optional<std::string> shorthand(bool& negated) {
    const char c = in_[at_ + 1];
    negated = c >= 'A' && c <= 'Z';
    const char kind = static_cast<char>(c | 0x20);
    std::optional<std::string> members;
    if (kind == 's') members = kSpaceMembers;
    if (kind == 'w') members = word_members();
    if (kind == 'd') members = property_members("Nd");
    if (kind == 'h') members = "0-9a-fA-F";
    if (kind == 'p') return property(negated);
    if (members) at_ += 2;
    return members;
  }

  // Oniguruma and PCRE2 differ in what is left of them where the case is ignored.
  void check_case(std::string_view name) const {
    for (const std::string_view cased : {"Lu", "Ll", "Lt", "upper", "lower", "Upper", "Lower"}) {
      if (ignores_case_ && name == cased) refuse(fmt::format("the class '{}' under (?i)", name));
    }
  }

  std::optional<std::string> property(bool& negated) {
    at_ += 2;
    const size_t end = in_.find('}', at_);
    if (ends() || in_[at_] != '{' || end == in_.npos) refuse("\\p without a name in braces");
    std::string name = in_.substr(at_ + 1, end - at_ - 1);
    if (name.starts_with('^')) {
      negated = !negated;
      name.erase(0, 1);
    }
    at_ = end + 1;
    if (name == "C") {
      negated = !negated;
      return assigned_members();
    }
    auto members = property_members(name);
    if (!members) refuse(fmt::format("the property '{}'", name));
    check_case(name);
    return members;
  }

  // An escape that stands for one character: its expression.
  std::string escaped_character() {
    const char c = in_[at_ + 1];
    const auto hexadecimal = [&](size_t size) {
      const std::string number = in_.substr(at_, size);
      const bool right = !number.empty() && number.size() == size && size <= 8 &&
                         std::all_of(number.begin(), number.end(), is_hexadecimal);
      if (!right) refuse(fmt::format("\\{} without its hexadecimal digits", c));
      at_ += size;
      return "\\x{" + number + "}";
    };
    at_ += 2;
    if (c == 'u') return hexadecimal(4);
    if (c == 'x' && take("{")) {
      std::string text = hexadecimal(std::min(in_.find('}', at_), in_.size()) - at_);
      if (!take("}")) refuse("\\x{ without }");
      return text;
    }
    if (c == 'x') {
      // Behind 7f these are bytes, of which Oniguruma makes characters.
      if (!ends() && in_[at_] > '7') refuse("\\x80 or more");
      return hexadecimal(2);
    }
    if (c == 'v') return "\\x{b}";
    if (std::string_view("nrtfae").find(c) != std::string_view::npos) return {'\\', c};
    if (is_letter_or_digit(c)) refuse(fmt::format("\\{}, which has no counterpart", c));
    --at_;
    return literal(take_character());
  }

  Atom escape() {
    if (at_ + 1 >= in_.size()) refuse("a backslash at the end");
    const char c = in_[at_ + 1];
    if (c == 'A' || (ruby() && (c == 'z' || c == 'Z'))) {
      at_ += 2;
      return {{'\\', c}, false};
    }
    if (ruby() && (c == 'b' || c == 'B')) {
      at_ += 2;
      // Between a character of \w and one that is none, or the text's end.
      return {fmt::format("(?:(?<=[{0}])(?{1}[{0}])|(?<![{0}])(?{2}[{0}]))", word_members(),
                          c == 'b' ? '!' : '=', c == 'b' ? '=' : '!'),
              false};
    }
    bool negated = false;
    if (const auto members = shorthand(negated)) {
      return {fmt::format("[{}{}]", negated ? "^" : "", *members)};
    }
    return {escaped_character()};
  }

  // ---- classes

  std::string char_class() {
    bool negated = false;
    const CharSet set = class_set(negated);
    return set.write(negated);
  }

  // Behind the [; what is negated is the whole.
  CharSet class_set(bool& negated) {
    if (++depth_ > kMaxDepth) refuse("classes nested too deep");
    ++at_;
    negated = take("^");
    if (sees("]")) refuse("a class that begins with ]");
    CharSet set;
    while (!take("]")) {
      if (ends()) refuse("a [ without ]");
      if (sees("&&")) {
        set = intersection(set);
      } else if (!ruby() && (sees("--") || sees("~~"))) {
        refuse(fmt::format("the operation {} of classes", in_.substr(at_, 2)));
      } else {
        item(set);
      }
    }
    --depth_;
    return set;
  }

  void item(CharSet& set) {
    if (in_[at_] == '[') {
      if (!posix_class(set)) nested(set);
    } else if (in_[at_] != '\\') {
      return range(set, literal(take_character()));
    } else {
      if (at_ + 1 >= in_.size()) refuse("a backslash at the end");
      if (ruby() && in_[at_ + 1] == 'b') {
        at_ += 2;
        return range(set, "\\x{8}");
      }
      bool negated = false;
      const auto members = shorthand(negated);
      if (!members) return range(set, escaped_character());
      add(set, *members, negated);
    }
    if (sees("-") && !sees("-]")) refuse("a range that begins with a class");
  }

  static void add(CharSet& set, const std::string& members, bool negated) {
    if (!negated) {
      set.add(members);
    } else if (members == kSpaceMembers) {
      set.add(kNonSpaceMembers);
    } else {
      set.add_expression("[^" + members + "]");
    }
  }

  // `first`, or `first`-x.
  void range(CharSet& set, const std::string& first) {
    set.add(first);
    if (!sees("-") || sees("-]")) return;
    ++at_;
    if (ends() || in_[at_] == '[') refuse("a range that ends with a class");
    if (in_[at_] == '\\') {
      constexpr std::string_view kClasses = "sSdDwWhHpP";
      if (at_ + 1 >= in_.size()) refuse("a backslash at the end");
      if (kClasses.find(in_[at_ + 1]) != kClasses.npos) refuse("a range that ends with a class");
      set.add("-" + escaped_character());
    } else {
      set.add("-" + literal(take_character()));
    }
    if (sees("--")) refuse("-- behind a range");
    // A - behind a range stands for itself.
    if (sees("-") && take("-")) set.add("\\-");
  }

  bool posix_class(CharSet& set) {
    const size_t end = in_.find(":]", at_);
    if (!sees("[:") || end == in_.npos) return false;
    std::string name = in_.substr(at_ + 2, end - at_ - 2);
    const bool negated = name.starts_with('^');
    if (negated) name.erase(0, 1);
    if (!std::all_of(name.begin(), name.end(), is_letter_or_digit)) return false;
    const auto members = ruby() ? posix_members(name) : std::nullopt;
    if (!members) refuse(fmt::format("the POSIX class [:{}:]", name));
    check_case(name);
    add(set, *members, negated);
    at_ = end + 2;
    return true;
  }

  // The union with a class within the class.
  void nested(CharSet& set) {
    bool negated = false;
    const CharSet inner = class_set(negated);
    if (negated && ignores_case_) refuse("a negated class within a class under (?i)");
    if (negated) {
      set.add_expression(inner.write(true));
    } else {
      set.add(inner);
    }
  }

  // Of [A&&[B]] and [A&&[^B]]; others are refused.
  CharSet intersection(const CharSet& first) {
    at_ += 2;
    if (first.empty() || !sees("[")) refuse("an intersection of classes (&&)");
    if (ignores_case_) refuse("an intersection of classes (&&) under (?i)");
    bool negated = false;
    const CharSet second = class_set(negated);
    if (!sees("]")) refuse("an intersection of classes (&&)");
    CharSet both;
    both.add_expression(
        fmt::format("(?:(?{}{}){})", negated ? '!' : '=', second.write(false), first.write(false)));
    return both;
  }

  const std::string& in_;
  RegexSyntax syntax_;
  const std::string& where_;
  size_t at_ = 0;
  int depth_ = 0;
  bool ignores_case_ = false;  // for the atom that is read
};

}  // namespace

std::string translate_regex(const std::string& expression, RegexSyntax syntax,
                            const std::string& where) {
  return Translator(expression, syntax, where).run();
}

void refuse_regex(const std::string& where, const std::string& problem) {
  throw DataError(
      "tokenizer",
      fmt::format("expected a regular expression that can be read at {}, got {}", where, problem));
}

}  // namespace qianli::text
