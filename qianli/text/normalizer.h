// The normalizers of tokenizer.json: text to text, before splitting.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/text/pattern.h"

namespace qianli::text {

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

// Appends nothing, replaces `text` in place; false when it was in that form already. Characters
// newer than Unicode 9 stay as they are and order nothing, as in the library whose ids we give.
bool normalize_unicode(std::string& text, UnicodeForm form);
// True when NFC would leave `text` alone; may say false where it would.
bool is_surely_nfc(std::string_view text);

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // True when apply() might change `text`: saves a copy of the text.
  virtual bool may_change(std::string_view text) const {
    (void)text;
    return true;
  }
  virtual void apply(std::string& text) const = 0;
};

// A file whose replacements blow texts up is a trap: each may grow a text by a factor, and so may
// all of them together. Throws DataError above that.
void check_growth(size_t before, size_t after);

std::unique_ptr<const Normalizer> make_unicode_normalizer(UnicodeForm form);
std::unique_ptr<const Normalizer> make_lowercase_normalizer();
std::unique_ptr<const Normalizer> make_strip_normalizer(bool left, bool right);
std::unique_ptr<const Normalizer> make_replace_normalizer(std::unique_ptr<const Pattern> pattern,
                                                          std::string content);
std::unique_ptr<const Normalizer> make_prepend_normalizer(std::string prefix);
std::unique_ptr<const Normalizer> make_normalizer_sequence(
    std::vector<std::unique_ptr<const Normalizer>> steps);
// Drops marks (general category M) without decomposing anything first.
std::unique_ptr<const Normalizer> make_strip_accents_normalizer();
// The control characters and white space of SentencePiece's "nmt" rules.
std::unique_ptr<const Normalizer> make_nmt_normalizer();
// Every byte becomes its character of the byte-level alphabet.
std::unique_ptr<const Normalizer> make_byte_level_normalizer();
struct BertNormalizerOptions {
  bool clean_text = true;            // control characters go, white space becomes the space
  bool handle_chinese_chars = true;  // spaces around ideographs
  bool strip_accents = true;
  bool lowercase = true;
};
std::unique_ptr<const Normalizer> make_bert_normalizer(const BertNormalizerOptions& options);

}  // namespace qianli::text
