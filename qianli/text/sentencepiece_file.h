// What a SentencePiece model file (tokenizer.model, spiece.model) holds: a ModelProto.
// Field numbers: sentencepiece_model.proto.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qianli::text {

struct SentencePieceFile {
  enum class PieceType { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
  struct Piece {
    std::string_view text;  // a part of the file
    float score = 0;
    PieceType type = PieceType::kNormal;
  };
  std::vector<Piece> pieces;  // the id is the place

  enum class ModelType { kUnigram = 1, kBpe, kWord, kChar };
  ModelType model_type = ModelType::kUnigram;
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  std::string_view unk_piece = "<unk>", bos_piece = "<s>", eos_piece = "</s>", pad_piece = "<pad>";
  std::string_view unk_surface = " \u2047 ";  // what decoding writes for the unknown piece

  std::string_view charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool has_denormalizer = false;

  size_t id_of(PieceType type, std::string_view text) const;  // npos where there is none
  static constexpr size_t npos = ~size_t{0};
};

// The result points into `bytes`. Throws DataError naming `source` for what is no such file, and
// for pieces that are empty, longer than 8000 bytes or not UTF-8.
SentencePieceFile parse_sentencepiece(std::string_view bytes, const std::string& source);

}  // namespace qianli::text
