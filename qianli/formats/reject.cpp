#include "qianli/formats/reject.h"

#include <fmt/core.h>

namespace qianli::formats {

void reject(FileRole role, const std::string& source, const std::string& reason,
            const std::string& hint) {
  throw_file_error(role, source + ": " + reason, hint);
}

std::string shown_name(std::string_view name) {
  constexpr size_t kLongest = 200;
  std::string text = "'";
  for (const char c : name.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      text += fmt::format("\\x{:02x}", byte);
    } else {
      text += c;
    }
  }
  if (name.size() > kLongest) text += "...";
  return text + "'";
}

}  // namespace qianli::formats
