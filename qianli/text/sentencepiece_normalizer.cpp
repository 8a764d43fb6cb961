#include <algorithm>

#include "qianli/text/sentencepiece.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

constexpr std::string_view kSpaceSymbol = "\u2581";

class SentencePieceNormalizer : public Normalizer {
 public:
  SentencePieceNormalizer(std::shared_ptr<const Charsmap> charsmap,
                          std::shared_ptr<const Trie> user_defined,
                          const SentencePieceNormalizerOptions& options)
      : charsmap_(std::move(charsmap)),
        user_defined_(std::move(user_defined)),
        options_(options),
        space_(options.escape_whitespaces ? kSpaceSymbol : " ") {}

  void apply(std::string& text) const override {
    std::string_view rest = text;
    if (options_.remove_extra_whitespaces) remove_leading_spaces(rest);
    std::string out;
    if (!rest.empty()) {
      out.reserve(text.size() + text.size() / 2 + space_.size());
      const bool prefix = options_.add_dummy_prefix && !options_.treat_whitespace_as_suffix;
      if (prefix) out += space_;
      append_normalized(rest, out);
      if (options_.remove_extra_whitespaces) {
        while (out.ends_with(space_)) out.resize(out.size() - space_.size());
      }
      if (options_.add_dummy_prefix && options_.treat_whitespace_as_suffix) out += space_;
    }
    text = std::move(out);
  }

 private:
  // What `text` begins with, and what it becomes.
  struct Prefix {
    size_t size;
    std::string_view becomes;
  };
  Prefix prefix_of(std::string_view text) const {
    int32_t piece = 0;
    const size_t defined = user_defined_->longest(text, 0, piece);
    if (defined > 0) return {defined, text.substr(0, defined)};
    const auto rule = charsmap_->longest(text);
    if (rule.size > 0) return {rule.size, rule.replacement};
    const size_t size = decode_char(text.data()).size;
    return {size, text.substr(0, size)};
  }

  void remove_leading_spaces(std::string_view& text) const {
    while (!text.empty()) {
      const Prefix prefix = prefix_of(text);
      if (prefix.becomes != " ") return;
      text.remove_prefix(prefix.size);
    }
  }

  void append_normalized(std::string_view text, std::string& out) const {
    const size_t all = text.size();
    bool after_space = options_.remove_extra_whitespaces;
    while (!text.empty()) {
      const Prefix prefix = prefix_of(text);
      std::string_view becomes = prefix.becomes;
      while (after_space && becomes.starts_with(' ')) becomes.remove_prefix(1);
      if (!becomes.empty()) {
        append_escaped(becomes, out);
        after_space = options_.remove_extra_whitespaces && becomes.ends_with(' ');
      }
      text.remove_prefix(prefix.size);
      check_growth(all, out.size());
    }
  }

  void append_escaped(std::string_view text, std::string& out) const {
    if (text.size() == 1) {
      if (text[0] == ' ') {
        out += space_;
      } else {
        out += text[0];
      }
      return;
    }
    for (size_t done = 0; done < text.size();) {
      const size_t space = std::min(text.find(' ', done), text.size());
      out += text.substr(done, space - done);
      if (space < text.size()) out += space_;
      done = space + 1;
    }
  }

  std::shared_ptr<const Charsmap> charsmap_;
  std::shared_ptr<const Trie> user_defined_;
  SentencePieceNormalizerOptions options_;
  std::string_view space_;
};

}  // namespace

std::unique_ptr<const Normalizer> make_sentencepiece_normalizer(
    std::shared_ptr<const Charsmap> charsmap, std::shared_ptr<const Trie> user_defined,
    const SentencePieceNormalizerOptions& options) {
  return std::make_unique<SentencePieceNormalizer>(std::move(charsmap), std::move(user_defined),
                                                   options);
}

}  // namespace qianli::text
