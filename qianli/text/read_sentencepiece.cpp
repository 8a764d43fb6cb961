// A tokenizer from a SentencePiece model file.
#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/text/read_files.h"
#include "qianli/text/sentencepiece.h"
#include "qianli/text/unigram_model.h"

namespace qianli::text {
namespace {

using PieceType = SentencePieceFile::PieceType;
using ModelType = SentencePieceFile::ModelType;

[[noreturn]] void refuse(const TokenizerImpl& tokenizer, const std::string& expected,
                         const std::string& got) {
  throw DataError("tokenizer",
                  fmt::format("expected {} in {}, got {}", expected, tokenizer.source, got));
}

void read_pieces(const SentencePieceFile& file, TokenizerImpl& tokenizer) {
  size_t bytes = 0;
  for (const auto& piece : file.pieces) bytes += piece.text.size();
  tokenizer.vocabulary.reserve(file.pieces.size(), bytes,
                               static_cast<int32_t>(file.pieces.size()) - 1);
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const auto& piece = file.pieces[id];
    if (tokenizer.vocabulary.add(piece.text, static_cast<int32_t>(id)) != Vocabulary::Added::kYes) {
      refuse(tokenizer, "every piece once", fmt::format("'{}' twice", piece.text));
    }
    // Control pieces come from outside; a text that spells one is text.
    if (piece.type == PieceType::kControl) {
      put_added_token({.id = static_cast<int32_t>(id),
                       .content = std::string(piece.text),
                       .special = true,
                       .matched = false},
                      tokenizer);
    }
  }
}

int32_t unknown_piece(const SentencePieceFile& file, const TokenizerImpl& tokenizer) {
  std::optional<size_t> unknown;
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    if (file.pieces[id].type != PieceType::kUnknown) continue;
    if (unknown) refuse(tokenizer, "one unknown piece", "two");
    unknown = id;
  }
  if (!unknown) refuse(tokenizer, "an unknown piece", "none");
  return static_cast<int32_t>(*unknown);
}

void check_bytes(const SentencePieceFile& file, const TokenizerImpl& tokenizer) {
  const auto count = std::count_if(file.pieces.begin(), file.pieces.end(), [](const auto& piece) {
    return piece.type == PieceType::kByte;
  });
  if (count != (file.byte_fallback ? 256 : 0)) {
    refuse(tokenizer, "a piece for every byte with byte_fallback, and none without",
           fmt::format("{}", count));
  }
  if (!file.byte_fallback) return;
  for (const int32_t id : byte_token_ids(tokenizer.vocabulary)) {
    if (id < 0 || file.pieces[static_cast<size_t>(id)].type != PieceType::kByte) {
      refuse(tokenizer, "the pieces <0x00> to <0xFF>", "others");
    }
  }
}

std::shared_ptr<const Trie> user_defined_pieces(const SentencePieceFile& file) {
  std::vector<Trie::Entry> entries;
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const auto& piece = file.pieces[id];
    if (piece.type == PieceType::kUserDefined) {
      entries.push_back({piece.text, static_cast<int32_t>(id)});
    }
  }
  return std::make_shared<const Trie>(std::move(entries));
}

void read_normalizers(const SentencePieceFile& file, const FolderConfig& config,
                      std::shared_ptr<const Trie> user_defined, TokenizerImpl& tokenizer) {
  const auto charsmap = file.charsmap.empty()
                            ? std::make_shared<const Charsmap>()
                            : std::make_shared<const Charsmap>(
                                  file.charsmap, "precompiled_charsmap of " + tokenizer.source);
  SentencePieceNormalizerOptions options;
  options.add_dummy_prefix = config.add_prefix_space.value_or(file.add_dummy_prefix);
  options.remove_extra_whitespaces = file.remove_extra_whitespaces;
  options.escape_whitespaces = file.escape_whitespaces;
  options.treat_whitespace_as_suffix = file.treat_whitespace_as_suffix;
  tokenizer.normalizer = make_sentencepiece_normalizer(charsmap, user_defined, options);
  if (config.legacy.value_or(true) || !options.add_dummy_prefix) return;
  options.add_dummy_prefix = false;
  tokenizer.later_normalizer =
      make_sentencepiece_normalizer(charsmap, std::move(user_defined), options);
}

std::unique_ptr<const Model> read_unigram(const SentencePieceFile& file, int32_t unk_id,
                                          const Vocabulary& vocabulary) {
  std::vector<UnigramModel::Piece> pieces;
  float lowest = 3.4028235e38f;
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const auto& piece = file.pieces[id];
    const bool defined = piece.type == PieceType::kUserDefined;
    if (!defined && piece.type != PieceType::kNormal) continue;
    pieces.push_back({piece.text, static_cast<int32_t>(id), piece.score, defined});
    if (!defined) lowest = std::min(lowest, piece.score);
  }
  UnigramOptions options;
  options.unk_id = unk_id;
  options.byte_fallback = file.byte_fallback;
  options.single_precision = true;
  options.unk_score = lowest - 10.0f;
  return std::make_unique<UnigramModel>(vocabulary, pieces, options);
}

void read_sentencepiece_model(const SentencePieceFile& file, int32_t unk_id,
                              const std::shared_ptr<const Trie>& user_defined,
                              TokenizerImpl& tokenizer) {
  if (file.model_type == ModelType::kUnigram) {
    tokenizer.model = read_unigram(file, unk_id, tokenizer.vocabulary);
    return;
  }
  if (file.model_type == ModelType::kWord) {
    refuse(tokenizer, "a model of type unigram, bpe or char", "word");
  }
  auto bpe = std::make_unique<SentencePieceBpe>(file, user_defined, unk_id, tokenizer.source);
  tokenizer.cutter = bpe->take_cutter();
  tokenizer.model = std::move(bpe);
}

// Id of a control piece; the files beside the model may name another token.
std::optional<int32_t> control_piece(const SentencePieceFile& file, std::string_view name) {
  const size_t id = file.id_of(PieceType::kControl, name);
  return id == SentencePieceFile::npos ? std::nullopt : std::optional(static_cast<int32_t>(id));
}

}  // namespace

void read_sentencepiece(std::string_view bytes, const FolderConfig& config,
                        TokenizerImpl& tokenizer) {
  const SentencePieceFile file = parse_sentencepiece(bytes, tokenizer.source);
  if (file.has_denormalizer) refuse(tokenizer, "a model without a denormalizer", "one with it");
  read_pieces(file, tokenizer);
  check_bytes(file, tokenizer);
  const int32_t unk_id = unknown_piece(file, tokenizer);
  put_added_token({.id = unk_id,
                   .content = std::string(file.pieces[static_cast<size_t>(unk_id)].text),
                   .spelling = std::string(file.unk_surface),
                   .matched = false},
                  tokenizer);
  const auto user_defined = user_defined_pieces(file);
  read_normalizers(file, config, user_defined, tokenizer);
  read_sentencepiece_model(file, unk_id, user_defined, tokenizer);
  const bool strips = file.add_dummy_prefix || file.remove_extra_whitespaces;
  tokenizer.decoder = {{.kind = DecodeStep::Kind::kSentencePiece,
                        .content = "\u2581",
                        .start = strips ? 1u : 0u,
                        .stop = file.remove_extra_whitespaces ? 1u : 0u,
                        .bytes = file.byte_fallback}};
  tokenizer.bos = control_piece(file, file.bos_piece);
  tokenizer.eos = control_piece(file, file.eos_piece);
  tokenizer.pad = control_piece(file, file.pad_piece);
  // As the model families' own code: bos in front, but for the T5 family, which ends texts with
  // eos.
  const std::string name = config.class_name();
  const bool t5 = name == "T5Tokenizer" || name == "MT5Tokenizer" || name == "UMT5Tokenizer";
  tokenizer.puts_bos = !t5;
  tokenizer.puts_eos = t5;
  add_configured_tokens(config, tokenizer);
}

}  // namespace qianli::text
