// Character classes of an older Unicode, as the reference library's normalizers and pre-tokenizers
// for BERT see them: its tables for these are those of Unicode 8 and 9, while its regular
// expressions follow Unicode 16 (unicode.h).
#pragma once

#include <cstdint>

namespace qianli::text {

enum class OldClass {
  kPunctuation,     // P, and all signs of ASCII
  kOther,           // Cc, Cf, Co without tab, line feed, carriage return and NUL
  kNonspacingMark,  // Mn
  kMark,            // M, of Unicode 9
};
bool has_old_class(char32_t c, OldClass wanted);

}  // namespace qianli::text
