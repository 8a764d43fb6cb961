#include "qianli/text/word_models.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

// Counts no further than `most` + 1.
size_t characters_up_to(std::string_view text, size_t most) {
  size_t count = 0;
  for (const char c : text) {
    if (!is_continuation(c) && ++count > most) break;
  }
  return count;
}

}  // namespace

struct WordPieceModel::Buffers : Model::Scratch {
  std::string name;  // prefix and what is left of the word
};

WordPieceModel::WordPieceModel(const Vocabulary& vocabulary, WordPieceOptions options)
    : vocabulary_(vocabulary), options_(std::move(options)) {
  for (int32_t id = 0; id < vocabulary.end_id(); ++id) {
    longest_token_ = std::max(longest_token_, vocabulary.token(id).size());
  }
}

std::unique_ptr<Model::Scratch> WordPieceModel::make_scratch() const {
  return std::make_unique<Buffers>();
}

void WordPieceModel::encode(std::string_view piece, Scratch& scratch,
                            std::vector<int32_t>& ids) const {
  if (characters_up_to(piece, options_.max_input_chars_per_word) >
      options_.max_input_chars_per_word) {
    return ids.push_back(options_.unk_id);
  }
  std::string& name = static_cast<Buffers&>(scratch).name;
  const size_t first_id = ids.size();
  for (size_t begin = 0; begin < piece.size();) {
    name.assign(begin > 0 ? options_.continuing_subword_prefix : "");
    const size_t prefix = name.size();
    if (prefix > longest_token_) break;
    name += piece.substr(begin, longest_token_ - prefix);
    // Cut to whole characters, then character by character.
    if (begin + (name.size() - prefix) < piece.size()) {
      while (name.size() > prefix && is_continuation(piece[begin + name.size() - prefix])) {
        name.pop_back();
      }
    }
    std::optional<int32_t> id;
    while (name.size() > prefix && !(id = vocabulary_.find(name))) {
      name.resize(name.size() - decode_last_char(name).size);
    }
    if (!id) break;
    ids.push_back(*id);
    begin += name.size() - prefix;
    if (begin == piece.size()) return;
  }
  ids.resize(first_id);
  ids.push_back(options_.unk_id);
}

void WordLevelModel::encode(std::string_view piece, Scratch&, std::vector<int32_t>& ids) const {
  const auto id = vocabulary_.find(piece);
  if (id) return ids.push_back(*id);
  if (unk_id_) return ids.push_back(*unk_id_);
  throw DataError("tokenizer", fmt::format("expected words of a vocabulary without an unknown "
                                           "token, got '{}'",
                                           piece.substr(0, 40)));
}

}  // namespace qianli::text
