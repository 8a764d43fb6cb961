// How a regular expression names characters: escapes, properties and classes in brackets, written
// anew for PCRE2. Internal to the room.
#pragma once

#include <optional>
#include <string>

#include "qianli/text/regex_class.h"
#include "qianli/text/regex_cursor.h"

namespace qianli::text {

bool is_letter_or_digit(char c);
// Signs are written so that they stand for themselves, in brackets and out of them.
std::string literal(std::string_view character);

class RegexCharacters : public RegexCursor {
 protected:
  using RegexCursor::RegexCursor;

  // The members of \s \d \w \h \p{..}; `negated` for \S \D \W \H \P{..} and \p{^..}.
  std::optional<std::string> shorthand(bool& negated);
  // An escape that stands for one character: its expression.
  std::string escaped_character();
  std::string char_class();

  bool ignores_case_ = false;  // for the atom that is read

 private:
  // Oniguruma and PCRE2 differ in what is left of them where the case is ignored.
  void check_case(std::string_view name) const;
  std::optional<std::string> property(bool& negated);
  // Behind the [; what is negated is the whole.
  CharSet class_set(bool& negated);
  void item(CharSet& set);
  static void add(CharSet& set, const std::string& members, bool negated);
  // `first`, or `first`-x.
  void range(CharSet& set, const std::string& first);
  bool posix_class(CharSet& set);
  // The union with a class within the class.
  void nested(CharSet& set);
  // Of [A&&[B]] and [A&&[^B]]; others are refused.
  CharSet intersection(const CharSet& first);
};

}  // namespace qianli::text
