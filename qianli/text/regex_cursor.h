// A place in a regular expression that is read. Internal to the room.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "qianli/text/regex_translator.h"
#include "qianli/text/unicode.h"

namespace qianli::text {

class RegexCursor {
 public:
  RegexCursor(const std::string& expression, RegexSyntax syntax, const std::string& where)
      : in_(expression), syntax_(syntax), where_(where) {}

 protected:
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
  // Of groups and classes; PCRE2 has limits of its own.
  void enter(const char* what) {
    if (++depth_ > 100) refuse(std::string(what) + " nested too deep");
  }
  void leave() { --depth_; }

  const std::string& in_;
  size_t at_ = 0;

 private:
  RegexSyntax syntax_;
  const std::string& where_;
  int depth_ = 0;
};

}  // namespace qianli::text
