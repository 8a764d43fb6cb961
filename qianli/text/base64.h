#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace qianli::text {

// RFC 4648, with or without padding; nothing where the text is no base64.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace qianli::text
