#include "qianli/data/digest.h"

#include <fmt/core.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include <stdexcept>

namespace qianli::data {

std::string md5_hex(std::span<const std::byte> bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest, &length, EVP_md5(), nullptr) != 1) {
    throw std::runtime_error("MD5 is not available in this libcrypto");
  }
  std::string text;
  for (unsigned int i = 0; i < length; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

std::string md5_hex(std::string_view text) { return md5_hex(std::as_bytes(std::span(text))); }

std::string xxh3_hex(std::span<const std::byte> bytes) {
  return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size()));
}

std::string xxh3_hex(std::string_view text) { return xxh3_hex(std::as_bytes(std::span(text))); }

std::string fingerprint_of_file(const fs::path& path) {
  constexpr size_t kPiece = size_t{1} << 20, kPieces = 256;
  const auto file = MappedFile::open(path, FileRole::kData);
  const auto bytes = file->bytes();
  std::string parts = std::to_string(bytes.size());
  if (bytes.size() <= kPiece * kPieces) return xxh3_hex(parts + xxh3_hex(bytes));
  for (size_t i = 0; i < kPieces; ++i) {
    const size_t begin = (bytes.size() - kPiece) / (kPieces - 1) * i;
    parts += xxh3_hex(bytes.subspan(begin, kPiece));
  }
  parts += xxh3_hex(bytes.last(kPiece));
  return xxh3_hex(parts);
}

}  // namespace qianli::data
