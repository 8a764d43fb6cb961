#include "qianli/text/piece_cutter.h"

#include "qianli/text/unicode.h"

namespace qianli::text {

PieceCutter::PieceCutter(const Vocabulary& vocabulary) : pairs_(1024, 0) {
  for (int32_t id = 0; id < vocabulary.end_id(); ++id) {
    const auto token = vocabulary.token(id);
    if (token.empty()) continue;
    const Decoded c = decode_char(token.data());
    if (c.size == token.size() && c.code < known_.size()) known_.set(c.code);
  }
}

void PieceCutter::join(std::string_view left, std::string_view right) {
  const char32_t x = decode_last_char(left).code, y = decode_char(right.data()).code;
  if (x < 128 && y < 128) {
    ascii_pairs_.set(x * 128 + y);
  } else {
    insert(pair_of(x, y));
  }
}

void PieceCutter::insert(uint64_t pair) {
  if (2 * (count_ + 1) > pairs_.size()) grow();
  const size_t mask = pairs_.size() - 1;
  size_t i = hash(pair) & mask;
  while (pairs_[i] != 0 && pairs_[i] != pair) i = (i + 1) & mask;
  if (pairs_[i] == pair) return;
  pairs_[i] = pair;
  ++count_;
}

void PieceCutter::grow() {
  std::vector<uint64_t> old(2 * pairs_.size(), 0);
  old.swap(pairs_);
  count_ = 0;
  for (const uint64_t pair : old) {
    if (pair != 0) insert(pair);
  }
}

bool PieceCutter::joined(char32_t left, char32_t right) const {
  if (left < 128 && right < 128) return ascii_pairs_.test(left * 128 + right);
  const uint64_t pair = pair_of(left, right);
  const size_t mask = pairs_.size() - 1;
  for (size_t i = hash(pair) & mask; pairs_[i] != 0; i = (i + 1) & mask) {
    if (pairs_[i] == pair) return true;
  }
  return false;
}

size_t PieceCutter::end_of_part(std::string_view piece, size_t begin) const {
  Decoded left = decode_char(piece.data() + begin);
  size_t at = begin + left.size;
  while (at < piece.size()) {
    const Decoded right = decode_char(piece.data() + at);
    const bool known = left.code < known_.size() && right.code < known_.size() &&
                       known_.test(left.code) && known_.test(right.code);
    if (known && !joined(left.code, right.code)) return at;
    left = right;
    at += right.size;
  }
  return at;
}

}  // namespace qianli::text
