#include "qianli/base/wire.h"

#include <fmt/core.h>

#include "qianli/base/error.h"

namespace qianli {

void WireReader::refuse(const std::string& got) const {
  throw DataError(component_,
                  fmt::format("expected a protocol buffer in {}, got {} at byte {} of {}", where_,
                              got, at_, message_.size()));
}

uint64_t WireReader::varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (at_ == message_.size()) refuse("an end within a number");
    const auto byte = static_cast<unsigned char>(message_[at_++]);
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  refuse("a number of more than 64 bits");
}

uint64_t WireReader::fixed(size_t bytes) {
  if (message_.size() - at_ < bytes) refuse("an end within a number");
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    value |= static_cast<uint64_t>(static_cast<unsigned char>(message_[at_ + i])) << 8 * i;
  }
  at_ += bytes;
  return value;
}

std::optional<WireField> WireReader::next() {
  if (at_ == message_.size()) return std::nullopt;
  const uint64_t tag = varint();
  const uint64_t number = tag >> 3;
  if (number == 0 || number >= 1u << 29) refuse("a field without a number");
  WireField field{.number = static_cast<uint32_t>(number),
                  .type = static_cast<WireField::Type>(tag & 7)};
  switch (field.type) {
    case WireField::Type::kVarint:
      field.value = varint();
      break;
    case WireField::Type::kFixed64:
      field.value = fixed(8);
      break;
    case WireField::Type::kFixed32:
      field.value = fixed(4);
      break;
    case WireField::Type::kBytes: {
      const uint64_t size = varint();
      if (size > message_.size() - at_) refuse(fmt::format("a field of {} bytes", size));
      field.bytes = message_.substr(at_, size);
      at_ += size;
      break;
    }
    default:
      refuse(fmt::format("a field of type {}", tag & 7));
  }
  return field;
}

}  // namespace qianli
