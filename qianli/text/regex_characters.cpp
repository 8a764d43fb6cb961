#include "qianli/text/regex_characters.h"

#include <fmt/core.h>

#include <algorithm>

namespace qianli::text {
namespace {

bool is_hexadecimal(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

}  // namespace

bool is_letter_or_digit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

std::string literal(std::string_view character) {
  const char c = character[0];
  const bool plain = static_cast<unsigned char>(c) >= 0x80 || static_cast<unsigned char>(c) <= ' ';
  return (plain || is_letter_or_digit(c) ? "" : "\\") + std::string(character);
}

std::optional<std::string> RegexCharacters::shorthand(bool& negated) {
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

void RegexCharacters::check_case(std::string_view name) const {
  for (const std::string_view cased : {"Lu", "Ll", "Lt", "upper", "lower", "Upper", "Lower"}) {
    if (ignores_case_ && name == cased) refuse(fmt::format("the class '{}' under (?i)", name));
  }
}

std::optional<std::string> RegexCharacters::property(bool& negated) {
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

std::string RegexCharacters::escaped_character() {
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

std::string RegexCharacters::char_class() {
  bool negated = false;
  const CharSet set = class_set(negated);
  return set.write(negated);
}

CharSet RegexCharacters::class_set(bool& negated) {
  enter("classes");
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
  leave();
  return set;
}

void RegexCharacters::item(CharSet& set) {
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

void RegexCharacters::add(CharSet& set, const std::string& members, bool negated) {
  if (!negated) {
    set.add(members);
  } else if (members == kSpaceMembers) {
    set.add(kNonSpaceMembers);
  } else {
    set.add_expression("[^" + members + "]");
  }
}

void RegexCharacters::range(CharSet& set, const std::string& first) {
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

bool RegexCharacters::posix_class(CharSet& set) {
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

void RegexCharacters::nested(CharSet& set) {
  bool negated = false;
  const CharSet inner = class_set(negated);
  if (negated && ignores_case_) refuse("a negated class within a class under (?i)");
  if (negated) {
    set.add_expression(inner.write(true));
  } else {
    set.add(inner);
  }
}

CharSet RegexCharacters::intersection(const CharSet& first) {
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

}  // namespace qianli::text
