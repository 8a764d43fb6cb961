// Cuts a long piece where no merge can join the characters on both sides, so that the parts have
// the ids they have in the whole. SentencePiece-style tokenizers do not split text before BPE; with
// their merges this finds the words again, and the piece cache applies.
#pragma once

#include <bitset>
#include <cstdint>
#include <string_view>
#include <vector>

#include "qianli/text/vocabulary.h"

namespace qianli::text {

class PieceCutter {
 public:
  // Characters that are tokens, so that each begins as a symbol of its own.
  explicit PieceCutter(const Vocabulary& vocabulary);
  // The merge of `left` and `right` exists: their meeting characters must stay together.
  void join(std::string_view left, std::string_view right);
  // The end of the part that begins at `begin`; at most piece.size().
  size_t end_of_part(std::string_view piece, size_t begin) const;

 private:
  bool joined(char32_t left, char32_t right) const;
  void insert(uint64_t pair);
  void grow();
  static size_t hash(uint64_t pair) {
    return static_cast<size_t>((pair * 0x9E3779B97F4A7C15ull) >> 32);
  }
  static uint64_t pair_of(char32_t left, char32_t right) {
    return static_cast<uint64_t>(left) << 32 | right;
  }
  std::bitset<0x10000> known_;
  std::bitset<128 * 128> ascii_pairs_;
  std::vector<uint64_t> pairs_;  // open addressing; 0 is free (U+0000 twice is an ASCII pair)
  size_t count_ = 0;
};

}  // namespace qianli::text
