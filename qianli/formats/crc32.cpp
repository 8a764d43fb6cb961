#include "qianli/formats/crc32.h"

#include <libdeflate.h>

namespace qianli::formats {

uint32_t crc32(uint32_t before, std::span<const std::byte> bytes) {
  // libdeflate takes a null pointer as the wish to start anew.
  if (bytes.empty()) return before;
  return libdeflate_crc32(before, bytes.data(), bytes.size());
}

}  // namespace qianli::formats
