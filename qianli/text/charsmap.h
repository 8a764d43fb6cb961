// SentencePiece's precompiled_charsmap: rules that replace strings, in a double array as the
// library darts-clone lays it out, followed by the replacements, each ended by a zero byte.
// Format: sentencepiece's normalizer.cc (EncodePrecompiledCharsMap), all numbers little-endian.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/text/normalizer.h"

namespace qianli::text {

class Charsmap {
 public:
  Charsmap() = default;
  // `where` names the place of `blob` in errors. Throws DataError for a blob that is no charsmap;
  // what is wrong inside the array ends the walk and is as if there were no rule.
  Charsmap(std::string_view blob, const std::string& where);

  bool empty() const { return units_.empty(); }
  struct Rule {
    size_t size = 0;  // bytes replaced; 0: no rule
    std::string_view replacement;
  };
  // The rule for the longest (or shortest) string that `text` begins with.
  Rule longest(std::string_view text) const { return find(text, false); }
  Rule shortest(std::string_view text) const { return find(text, true); }

 private:
  Rule find(std::string_view text, bool first) const;
  std::vector<uint32_t> units_;
  std::string replacements_;
};

// The normalizer "Precompiled" of tokenizer.json. It looks at grapheme clusters, not at the longest
// rule, and so does not always give what SentencePiece gives.
std::unique_ptr<const Normalizer> make_precompiled_normalizer(Charsmap charsmap);

}  // namespace qianli::text
