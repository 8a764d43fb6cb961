// Walking over a text by characters and their classes; what hand-written scanners are made of.
// Internal to the room.
#pragma once

#include <array>

#include "qianli/text/pattern.h"
#include "qianli/text/unicode.h"

namespace qianli::text {

// One character and its classes; size 0 at the end of the text.
struct Char {
  char32_t code = 0;
  uint32_t size = 0;
  uint16_t classes = 0;
  bool is(uint16_t mask) const { return (classes & mask) != 0; }
};

// The first 128 entries of the table side by side, for the common case.
inline const uint16_t* ascii_classes() {
  static const auto classes = [] {
    std::array<uint16_t, 128> of;
    for (char32_t c = 0; c < 128; ++c) of[c] = char_table().classes(c);
    return of;
  }();
  return classes.data();
}

class Text {
 public:
  explicit Text(std::string_view text) : begin_(text.data()), end_(text.data() + text.size()) {}
  Char at(size_t i) const {
    const char* p = begin_ + i;
    if (p == end_) return {};
    const auto byte = static_cast<unsigned char>(*p);
    if (byte < 0x80) return {byte, 1, ascii_[byte]};
    const Decoded d = decode_char(p);
    return {d.code, d.size, table_.classes(d.code)};
  }
  // The end of the run, from `i` on, of characters that have (or lack) a class of `mask`.
  size_t end_of_run(size_t i, uint16_t mask, bool wanted = true) const {
    for (;;) {
      const Char c = at(i);
      if (c.size == 0 || c.is(mask) != wanted) return i;
      i += c.size;
    }
  }
  size_t end_of_newlines(size_t i) const {
    while (begin_ + i < end_ && (begin_[i] == '\r' || begin_[i] == '\n')) ++i;
    return i;
  }
  size_t size() const { return static_cast<size_t>(end_ - begin_); }
  char byte(size_t i) const { return begin_[i]; }

 private:
  const char* begin_;
  const char* end_;
  const CharTable& table_ = char_table();
  const uint16_t* ascii_ = ascii_classes();
};

// A pattern out of Scanner::next(text, begin, end): whether a match begins at `begin`, and its end.
template <class Scanner>
class ScannerPattern : public Pattern {
 public:
  size_t find(std::string_view view, size_t from, std::span<Match> out) const override {
    const Text text(view);
    size_t count = 0;
    for (size_t at = from; at < view.size() && count < out.size();) {
      size_t end = 0;
      if (Scanner::next(text, at, end)) {
        out[count++] = {at, end};
        at = end;
      } else {
        at += text.at(at).size;
      }
    }
    return count;
  }
};

}  // namespace qianli::text
