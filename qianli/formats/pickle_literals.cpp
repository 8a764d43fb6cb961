// The opcodes that push a number or a text.
#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdlib>

#include "qianli/formats/pickle_machine.h"
#include "qianli/formats/pickle_opcodes.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr size_t kMaxLongBytes = 256;

// Decimal text of a little-endian two's complement number.
std::string decimal_text(std::span<const std::byte> bytes) {
  std::vector<uint32_t> digits;  // base 10^9, least first
  const bool negative = (bytes.back() & std::byte{0x80}) != std::byte{0};
  unsigned borrow = negative ? 1 : 0;
  std::vector<uint8_t> magnitude;
  for (const std::byte b : bytes) {
    const unsigned value =
        negative ? static_cast<unsigned>(~b & std::byte{0xff}) + borrow : static_cast<unsigned>(b);
    borrow = value >> 8;
    magnitude.push_back(static_cast<uint8_t>(value));
  }
  for (size_t i = magnitude.size(); i-- > 0;) {
    uint64_t carry = magnitude[i];
    for (uint32_t& digit : digits) {
      const uint64_t value = uint64_t{digit} * 256 + carry;
      digit = static_cast<uint32_t>(value % 1'000'000'000);
      carry = value / 1'000'000'000;
    }
    if (carry > 0) digits.push_back(static_cast<uint32_t>(carry));
  }
  std::string text = negative ? "-" : "";
  for (size_t i = digits.size(); i-- > 0;) {
    text += i + 1 == digits.size() ? fmt::format("{}", digits[i]) : fmt::format("{:09}", digits[i]);
  }
  return text;
}

}  // namespace

int64_t PickleMachine::decimal(std::string_view text) const {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end) {
    refuse(fmt::format("expected a whole number of 64 bits, got {}", shown_name(text)));
  }
  return value;
}

bool PickleMachine::run_number(uint8_t opcode) {
  switch (opcode) {
    case kNone:
      push({});
      return true;
    case kNewTrue:
      push(Value::boolean(true));
      return true;
    case kNewFalse:
      push(Value::boolean(false));
      return true;
    case kBinInt:
      push(Value::integer(number<int32_t>()));
      return true;
    case kBinInt1:
      push(Value::integer(number<uint8_t>()));
      return true;
    case kBinInt2:
      push(Value::integer(number<uint16_t>()));
      return true;
    case kLong1:
      push_long(take(number<uint8_t>()));
      return true;
    case kLong4:
      push_long(take(number<uint32_t>()));
      return true;
    case kInt: {
      const std::string_view text = line();
      if (text == "00" || text == "01") {
        push(Value::boolean(text == "01"));
      } else {
        push(Value::integer(decimal(text)));
      }
      return true;
    }
    case kLong: {
      std::string_view text = line();
      if (text.ends_with('L')) text.remove_suffix(1);
      push(Value::integer(decimal(text)));
      return true;
    }
    case kFloat: {
      const std::string text(line());
      char* end = nullptr;
      const double value = std::strtod(text.c_str(), &end);
      if (text.empty() || *end != '\0') refuse("expected a number, got " + shown_name(text));
      push(Value::real(value));
      return true;
    }
    case kBinFloat: {
      uint64_t bits = 0;  // the one number with its first byte first
      for (const std::byte b : take(8)) bits = bits << 8 | static_cast<uint64_t>(b);
      push(Value::real(std::bit_cast<double>(bits)));
      return true;
    }
    default:
      return false;
  }
}

void PickleMachine::push_long(std::span<const std::byte> bytes) {
  if (bytes.size() <= 8) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes.size(); ++i) value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
    const size_t unused = 64 - 8 * bytes.size();
    if (unused < 64) value = static_cast<uint64_t>(static_cast<int64_t>(value << unused) >> unused);
    return push(Value::integer(static_cast<int64_t>(value)));
  }
  if (bytes.size() > kMaxLongBytes) refuse("an integer of more than 2048 bits");
  push(Value::big_integer(decimal_text(bytes)));
}

bool PickleMachine::run_text(uint8_t opcode) {
  switch (opcode) {
    case kShortBinUnicode:
      push(Value::text(take_text(number<uint8_t>())));
      return true;
    case kBinUnicode:
      push(Value::text(take_text(number<uint32_t>())));
      return true;
    case kBinUnicode8:
      push(Value::text(take_text(number<uint64_t>())));
      return true;
    // Python 2's str: text where it is used, and Megatron's old files use it as such.
    case kShortBinString:
      push(Value::text(take_text(number<uint8_t>())));
      return true;
    case kBinString:
      push(Value::text(take_text(number<uint32_t>())));
      return true;
    case kShortBinBytes:
      push(Value::bytes(take_text(number<uint8_t>())));
      return true;
    case kBinBytes:
      push(Value::bytes(take_text(number<uint32_t>())));
      return true;
    case kBinBytes8:
    case kByteArray8:
      push(Value::bytes(take_text(number<uint64_t>())));
      return true;
    case kString:
      push_quoted_text();
      return true;
    case kUnicode:
      push_escaped_text();
      return true;
    default:
      return false;
  }
}

void PickleMachine::push_quoted_text() {
  std::string_view text = line();
  const bool quoted = text.size() >= 2 && text.front() == text.back() &&
                      (text.front() == '\'' || text.front() == '"');
  if (!quoted) refuse("expected a text in quotes");
  text = text.substr(1, text.size() - 2);
  if (text.find('\\') != text.npos) refuse("a text with escapes, which protocol 0 alone writes");
  push(Value::text(std::string(text)));
}

void PickleMachine::push_escaped_text() {
  const std::string_view text = line();
  if (text.find('\\') != text.npos) refuse("a text with escapes, which protocol 0 alone writes");
  push(Value::text(std::string(text)));
}

}  // namespace qianli::formats
