// Digests: MD5 where Megatron's file names ask for it, XXH3 for checking our own files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "qianli/base/file.h"

namespace qianli::data {

// 32 lower-case hexadecimal digits.
std::string md5_hex(std::span<const std::byte> bytes);
std::string md5_hex(std::string_view text);

// 16 lower-case hexadecimal digits of XXH3-64.
std::string xxh3_hex(std::span<const std::byte> bytes);
std::string xxh3_hex(std::string_view text);
// Of a file's size and bytes; of large files (above 256 MiB) 256 pieces of 1 MiB spread evenly over
// them, beginning and end among them, so that a corpus of any size is told from another at once.
std::string fingerprint_of_file(const fs::path& path);

}  // namespace qianli::data
