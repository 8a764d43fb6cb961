// Unigram: of all ways to write a piece in tokens, the one with the largest sum of scores
// (Viterbi). Kudo, "Subword Regularization" (2018); the same walk as EncodeOptimized of
// sentencepiece.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "qianli/text/model.h"
#include "qianli/text/trie.h"
#include "qianli/text/vocabulary.h"

namespace qianli::text {

struct UnigramOptions {
  std::optional<int32_t> unk_id;  // of characters in no token
  // Unknown characters become "<0xHH>" tokens, where all of them exist.
  bool byte_fallback = false;
  // How sums are rounded decides between ways of nearly equal score: `tokenizers` adds in double
  // precision, SentencePiece in single.
  bool single_precision = false;
  double unk_score = 0;
};

class UnigramModel : public Model {
 public:
  // Tokens that may stand in a text, with their scores; `vocabulary` holds all tokens and outlives
  // the model.
  struct Piece {
    std::string_view text;
    int32_t id;
    double score;
    bool user_defined = false;  // always preferred, whatever its score
  };
  UnigramModel(const Vocabulary& vocabulary, const std::vector<Piece>& pieces,
               UnigramOptions options);

  std::unique_ptr<Scratch> make_scratch() const override;
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const override;
  std::optional<int32_t> unk_id() const override { return options_.unk_id; }
  std::string kind() const override {
    return options_.byte_fallback ? "Unigram with byte fallback" : "Unigram";
  }

 private:
  struct Buffers;
  template <class Real>
  void find_best_path(std::string_view piece, Buffers& buffers) const;
  void append_unknown(std::string_view text, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary_;
  UnigramOptions options_;
  Trie trie_;
  std::vector<double> scores_;  // by id
  std::array<int32_t, 256> byte_ids_;
};

}  // namespace qianli::text
