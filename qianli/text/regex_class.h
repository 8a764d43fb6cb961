// Sets of characters of regular expressions, in the words of PCRE2, which knows no class within a
// class. Internal to the room.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qianli::text {

// The union of what stands in one pair of brackets and of expressions for one character each.
class CharSet {
 public:
  // "a", "a-z", "\p{L}": as PCRE2 reads it between brackets.
  void add(std::string_view members) { members_ += members; }
  // "[^x]", "(?:[a]|[^x])"
  void add_expression(std::string expression) { expressions_.push_back(std::move(expression)); }
  void add(const CharSet& other);
  bool empty() const { return members_.empty() && expressions_.empty(); }
  // An expression for one character of the set, or for one outside it.
  std::string write(bool negated) const;

 private:
  std::string members_;
  std::vector<std::string> expressions_;
};

// Members of \s, of what is not \s, and of \w (Alphabetic, M, Nd, Pc).
extern const std::string_view kSpaceMembers, kNonSpaceMembers;
const std::string& word_members();
// Of all categories but C, whose complement \p{C} is.
const std::string& assigned_members();
// Of \p{name}, of any spelling that is read alike here and there; of other names nothing.
std::optional<std::string> property_members(std::string_view name);
// Of [:name:], with the meaning that Oniguruma gives it for Unicode.
std::optional<std::string> posix_members(std::string_view name);

}  // namespace qianli::text
