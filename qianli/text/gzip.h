// Unpacking gzip, with a limit on the size unpacked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qianli::text {

bool is_gzip(std::string_view bytes);
// Throws DataError naming `source` for damaged input and for more than `max_bytes` of output.
std::string unpack_gzip(std::string_view bytes, uint64_t max_bytes, const std::string& source);

}  // namespace qianli::text
