// Protocol buffers on the wire, as far as reading a small message takes it: fields in order, by
// number and type. https://protobuf.dev/programming-guides/encoding
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qianli {

struct WireField {
  uint32_t number = 0;
  enum class Type { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 } type = Type::kVarint;
  uint64_t value = 0;      // of all but kBytes
  std::string_view bytes;  // of kBytes; a part of the message

  bool truth() const { return value != 0; }
  int32_t int32() const { return static_cast<int32_t>(value); }
  float float32() const { return std::bit_cast<float>(static_cast<uint32_t>(value)); }
};

class WireReader {
 public:
  // `component` and `where` name the reader and the message in errors and outlive the reader.
  WireReader(std::string_view message, const char* component, const std::string& where)
      : message_(message), component_(component), where_(where) {}
  // Nothing at the end. Throws DataError for what is no message.
  std::optional<WireField> next();

 private:
  uint64_t varint();
  uint64_t fixed(size_t bytes);
  [[noreturn]] void refuse(const std::string& got) const;

  std::string_view message_;
  size_t at_ = 0;
  const char* component_;
  const std::string& where_;
};

}  // namespace qianli
