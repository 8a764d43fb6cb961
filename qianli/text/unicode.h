// UTF-8 and character classes, as the regular expressions of tokenizers see them: Unicode 16.0.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qianli::text {

// Classes of a code point, one bit each. Letters, marks and numbers are split as far as the known
// split patterns ask.
enum CharClass : uint16_t {
  kUpperLetter = 1 << 0,  // Lu, Lt
  kLowerLetter = 1 << 1,  // Ll
  kOtherLetter = 1 << 2,  // Lm, Lo
  kMark = 1 << 3,         // M
  kNumber = 1 << 4,       // N
  kPunctuation = 1 << 5,  // P
  kSymbol = 1 << 6,       // S
  kSpace = 1 << 7,        // White_Space, not category Z
  kNewline = 1 << 8,      // \r and \n (kSpace is set too)
  kWord = 1 << 9,         // \w: Alphabetic, M, Nd, Pc (without the join controls)
  kLetter = kUpperLetter | kLowerLetter | kOtherLetter,
};

// Two-stage table: 256 code points a page, equal pages stored once.
class CharTable {
 public:
  CharTable();
  uint16_t classes(char32_t c) const {
    return c < 0x110000 ? pages_[page_of_[c >> 8]][c & 0xFF] : 0;
  }

 private:
  void add_page(uint32_t page, const std::array<uint16_t, 256>& classes);
  std::array<uint16_t, 0x1100> page_of_;
  std::vector<std::array<uint16_t, 256>> pages_;
};
const CharTable& char_table();
// Characters that Unicode 15 and 16 added with a general category whose name begins with
// `property` ("L", "Nd"), as members of a regular expression's class: \x{897}-\x{897}...
std::string newer_characters(std::string_view property);

// One decoded character; size is its bytes in the text.
struct Decoded {
  char32_t code;
  uint32_t size;
};
// The character at text[0] of valid, non-empty UTF-8.
inline Decoded decode_char(const char* p) {
  const auto b = [p](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(p[i])); };
  if (b(0) < 0x80) return {b(0), 1};
  if (b(0) < 0xE0) return {(b(0) & 0x1F) << 6 | (b(1) & 0x3F), 2};
  if (b(0) < 0xF0) return {(b(0) & 0x0F) << 12 | (b(1) & 0x3F) << 6 | (b(2) & 0x3F), 3};
  return {(b(0) & 0x07) << 18 | (b(1) & 0x3F) << 12 | (b(2) & 0x3F) << 6 | (b(3) & 0x3F), 4};
}
// The last character of valid, non-empty UTF-8.
Decoded decode_last_char(std::string_view text);
void append_utf8(std::string& out, char32_t code);

inline bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// Length of the longest valid UTF-8 prefix.
size_t valid_utf8_prefix(std::string_view bytes);
// Length of the ill-formed part at the start of `bytes` (whose first character is not valid): what
// one U+FFFD stands for ("maximal subpart", Unicode 16.0 section 3.9).
size_t ill_formed_size(std::string_view bytes);
// Appends `bytes` with each ill-formed part replaced by U+FFFD.
void append_lossy(std::string& out, std::string_view bytes);
// Bytes at the end that more bytes could complete to a character (0 to 3).
size_t incomplete_tail(std::string_view bytes);

}  // namespace qianli::text
