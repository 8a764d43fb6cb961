// Models that take a piece for a word: WordPiece (BERT) and WordLevel.
#pragma once

#include <string>

#include "qianli/text/model.h"
#include "qianli/text/vocabulary.h"

namespace qianli::text {

struct WordPieceOptions {
  int32_t unk_id = 0;  // of a word that cannot be written in tokens, or is too long
  std::string continuing_subword_prefix = "##";
  size_t max_input_chars_per_word = 100;
};

// The longest token that the word begins with, then the longest with the prefix that goes on there.
class WordPieceModel : public Model {
 public:
  // `vocabulary` outlives the model.
  WordPieceModel(const Vocabulary& vocabulary, WordPieceOptions options);
  std::unique_ptr<Scratch> make_scratch() const override;
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const override;
  std::optional<int32_t> unk_id() const override { return options_.unk_id; }
  std::string kind() const override { return "WordPiece"; }

 private:
  struct Buffers;
  const Vocabulary& vocabulary_;
  WordPieceOptions options_;
  size_t longest_token_ = 0;  // bytes
};

class WordLevelModel : public Model {
 public:
  WordLevelModel(const Vocabulary& vocabulary, std::optional<int32_t> unk_id)
      : vocabulary_(vocabulary), unk_id_(unk_id) {}
  std::unique_ptr<Scratch> make_scratch() const override { return std::make_unique<Scratch>(); }
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const override;
  std::optional<int32_t> unk_id() const override { return unk_id_; }
  std::string kind() const override { return "WordLevel"; }

 private:
  const Vocabulary& vocabulary_;
  std::optional<int32_t> unk_id_;
};

}  // namespace qianli::text
