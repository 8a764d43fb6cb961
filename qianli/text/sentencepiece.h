// The parts of SentencePiece that tokenizer.json does not have: its normaliser, which knows pieces
// that users defined, and BPE by scores.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qianli/text/bpe_model.h"
#include "qianli/text/charsmap.h"
#include "qianli/text/normalizer.h"
#include "qianli/text/piece_cutter.h"
#include "qianli/text/sentencepiece_file.h"
#include "qianli/text/trie.h"

namespace qianli::text {

struct SentencePieceNormalizerOptions {
  bool add_dummy_prefix = true;  // a space in front (or behind, see below)
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;  // spaces become U+2581
  bool treat_whitespace_as_suffix = false;
};
// The longest rule of the map at every place. Pieces of `user_defined` stay as they are.
std::unique_ptr<const Normalizer> make_sentencepiece_normalizer(
    std::shared_ptr<const Charsmap> charsmap, std::shared_ptr<const Trie> user_defined,
    const SentencePieceNormalizerOptions& options);

// BPE over characters: of all neighbours that together are a piece, those whose piece has the
// largest score merge first, the leftmost among equals. User-defined pieces are found first and
// merge with nothing.
class SentencePieceBpe : public Model {
 public:
  // A model of type kChar is one without merges. `file` is not needed afterwards.
  SentencePieceBpe(const SentencePieceFile& file, std::shared_ptr<const Trie> user_defined,
                   int32_t unk_id, const std::string& source);

  std::unique_ptr<Scratch> make_scratch() const override;
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const override;
  std::optional<int32_t> unk_id() const override { return unk_id_; }
  std::string kind() const override;
  // Null where pieces cannot be cut.
  std::unique_ptr<const PieceCutter> take_cutter() { return std::move(cutter_); }

 private:
  struct Buffers;
  std::vector<bool> read_symbols(const SentencePieceFile& file);
  MergeTable read_merges(const SentencePieceFile& file, const std::string& source);
  void encode_symbols(std::string_view piece, Buffers& buffers) const;

  int32_t unk_id_;
  bool byte_fallback_;
  bool merges_;
  std::shared_ptr<const Trie> user_defined_;
  // Pieces that stand in texts, by their ids; behind them characters that are in pieces without
  // being one, and then the id of all other characters.
  Vocabulary symbols_;
  int32_t num_pieces_;
  std::array<int32_t, 256> byte_ids_;
  std::unique_ptr<PieceCutter> cutter_;
  std::unique_ptr<const BpeModel> bpe_;
};

}  // namespace qianli::text
