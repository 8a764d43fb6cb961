// Patterns over parameter names, as written in optim.groups[].match.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace qianli::config {

// A glob over the whole name (`*` also crosses dots, `?`, `[a-z]`), or a PCRE2 regular expression
// in slashes that may match anywhere: `/layers\.[01]\./`.
class NamePattern {
 public:
  // ConfigError when the pattern is empty or no valid expression.
  explicit NamePattern(std::string pattern);
  // ConfigError when an expression takes absurdly many steps on `name`.
  bool matches(std::string_view name) const;

 private:
  std::string glob_;
  std::shared_ptr<const void> expression_;  // compiled pcre2_code; null for a glob
};

}  // namespace qianli::config
