#include "qianli/text/regex_translator.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/text/regex_characters.h"

namespace qianli::text {
namespace {

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

class Translator : RegexCharacters {
 public:
  using RegexCharacters::RegexCharacters;

  std::string run() {
    std::string out = alternatives({});
    if (at_ < in_.size()) refuse("a ) without (");
    return out;
  }

 private:
  // Up to the ) of the group, or to the end.
  std::string alternatives(const Options& options) {
    enter("groups");
    std::string out = branch(options);
    while (take("|")) out += "|" + branch(options);
    leave();
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
