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

std::unique_ptr<const Normalizer> make_unicode_normalizer(UnicodeForm form);
std::unique_ptr<const Normalizer> make_lowercase_normalizer();
std::unique_ptr<const Normalizer> make_strip_normalizer(bool left, bool right);
std::unique_ptr<const Normalizer> make_replace_normalizer(std::unique_ptr<const Pattern> pattern,
                                                          std::string content);
std::unique_ptr<const Normalizer> make_prepend_normalizer(std::string prefix);
std::unique_ptr<const Normalizer> make_normalizer_sequence(
    std::vector<std::unique_ptr<const Normalizer>> steps);

}  // namespace qianli::text
