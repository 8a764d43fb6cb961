// Rewrites regular expressions into PCRE2's syntax. Internal to the room.
#pragma once

#include <string>

#include "qianli/text/pattern.h"

namespace qianli::text {

// `where` names the expression's place for errors. What PCRE2 cannot do with the same meaning is
// refused with a DataError.
std::string translate_regex(const std::string& expression, RegexSyntax syntax,
                            const std::string& where);
[[noreturn]] void refuse_regex(const std::string& where, const std::string& problem);

}  // namespace qianli::text
