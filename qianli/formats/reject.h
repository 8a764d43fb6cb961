// Refusing a file: one sentence with its name and the reason.
#pragma once

#include <string>
#include <string_view>

#include "qianli/base/file.h"

namespace qianli::formats {

// Throws the error of `role`: "SOURCE: REASON".
[[noreturn]] void reject(FileRole role, const std::string& source, const std::string& reason,
                         const std::string& hint = {});

// A name from a foreign file, in quotes, cut to a readable length, control characters escaped.
std::string shown_name(std::string_view name);

}  // namespace qianli::formats
