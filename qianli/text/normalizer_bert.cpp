// Normalizers that look at one character at a time: BertNormalizer, StripAccents, Nmt, ByteLevel.

#include "qianli/text/bpe_model.h"
#include "qianli/text/normalizer.h"
#include "qianli/text/old_unicode.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

// Replaces text by what append(out, character, its bytes) makes of every character.
template <class Append>
void rewrite(std::string& text, const Append& append) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (size_t at = 0; at < text.size();) {
    const Decoded c = decode_char(text.data() + at);
    append(out, c.code, std::string_view(text).substr(at, c.size));
    at += c.size;
  }
  text = std::move(out);
}

bool is_chinese(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B81F) ||
         (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) ||
         (c >= 0x2F800 && c <= 0x2FA1F);
}

class BertNormalizer : public Normalizer {
 public:
  explicit BertNormalizer(const BertNormalizerOptions& options)
      : options_(options), lowercase_(make_lowercase_normalizer()) {}

  void apply(std::string& text) const override {
    if (options_.clean_text) clean(text);
    if (options_.handle_chinese_chars) space_out(text);
    if (options_.strip_accents) strip_accents(text);
    if (options_.lowercase) lowercase_->apply(text);
  }

 private:
  static void clean(std::string& text) {
    rewrite(text, [](std::string& out, char32_t c, std::string_view bytes) {
      if (c == 0 || c == 0xFFFD || has_old_class(c, OldClass::kOther)) return;
      if ((char_table().classes(c) & kSpace) != 0) {
        out += ' ';
      } else {
        out += bytes;
      }
    });
  }
  static void space_out(std::string& text) {
    rewrite(text, [](std::string& out, char32_t c, std::string_view bytes) {
      const bool chinese = is_chinese(c);
      if (chinese) out += ' ';
      out += bytes;
      if (chinese) out += ' ';
    });
  }
  static void strip_accents(std::string& text) {
    normalize_unicode(text, UnicodeForm::kNfd);
    rewrite(text, [](std::string& out, char32_t c, std::string_view bytes) {
      if (c < 0x300 || !has_old_class(c, OldClass::kNonspacingMark)) out += bytes;
    });
  }

  BertNormalizerOptions options_;
  std::unique_ptr<const Normalizer> lowercase_;
};

class StripAccentsNormalizer : public Normalizer {
 public:
  void apply(std::string& text) const override {
    rewrite(text, [](std::string& out, char32_t c, std::string_view bytes) {
      if (c < 0x300 || !has_old_class(c, OldClass::kMark)) out += bytes;
    });
  }
};

class NmtNormalizer : public Normalizer {
 public:
  void apply(std::string& text) const override {
    rewrite(text, [](std::string& out, char32_t c, std::string_view bytes) {
      if (is_dropped(c)) return;
      if (becomes_space(c)) {
        out += ' ';
      } else {
        out += bytes;
      }
    });
  }

 private:
  static bool is_dropped(char32_t c) {
    return (c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F ||
           c == 0x8F || c == 0x9F;
  }
  static bool becomes_space(char32_t c) {
    return c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
           (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
           c == 0xFEFF || c == 0xFFFD;
  }
};

class ByteLevelNormalizer : public Normalizer {
 public:
  void apply(std::string& text) const override { text = to_byte_level(text); }
};

}  // namespace

std::unique_ptr<const Normalizer> make_bert_normalizer(const BertNormalizerOptions& options) {
  return std::make_unique<BertNormalizer>(options);
}
std::unique_ptr<const Normalizer> make_strip_accents_normalizer() {
  return std::make_unique<StripAccentsNormalizer>();
}
std::unique_ptr<const Normalizer> make_nmt_normalizer() {
  return std::make_unique<NmtNormalizer>();
}
std::unique_ptr<const Normalizer> make_byte_level_normalizer() {
  return std::make_unique<ByteLevelNormalizer>();
}

}  // namespace qianli::text
