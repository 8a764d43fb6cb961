// CRC-32 of zip archives and MindSpore's checkpoints (IEEE 802.3, reflected).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace qianli::formats {

// Of bytes that follow those with sum `before`; 0 where none do.
uint32_t crc32(uint32_t before, std::span<const std::byte> bytes);

}  // namespace qianli::formats
