#include <fmt/core.h>

#include <algorithm>
#include <functional>

#include "qianli/text/byte_tokens.h"
#include "qianli/text/merges.h"
#include "qianli/text/sentencepiece.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

using PieceType = SentencePieceFile::PieceType;

bool stands_in_text(PieceType type) {
  return type == PieceType::kNormal || type == PieceType::kUserDefined ||
         type == PieceType::kUnused;
}

}  // namespace

struct SentencePieceBpe::Buffers : Model::Scratch {
  std::unique_ptr<Model::Scratch> bpe;
  std::vector<int32_t> symbols;
};

SentencePieceBpe::SentencePieceBpe(const SentencePieceFile& file,
                                   std::shared_ptr<const Trie> user_defined, int32_t unk_id,
                                   const std::string& source)
    : unk_id_(unk_id),
      byte_fallback_(file.byte_fallback),
      merges_(file.model_type == SentencePieceFile::ModelType::kBpe),
      user_defined_(std::move(user_defined)),
      num_pieces_(static_cast<int32_t>(file.pieces.size())) {
  BpeOptions options;
  options.unused = read_symbols(file);
  byte_ids_ = byte_token_ids(symbols_);
  options.byte_fallback = byte_fallback_;
  options.unk_id = symbols_.end_id();
  MergeTable merges;
  if (merges_) merges = read_merges(file, source);
  if (!options.unused.empty()) cutter_.reset();
  bpe_ = std::make_unique<BpeModel>(symbols_, std::move(merges), std::move(options));
}

// Which symbols are unused pieces; empty where there are none.
std::vector<bool> SentencePieceBpe::read_symbols(const SentencePieceFile& file) {
  size_t bytes = 0;
  for (const auto& piece : file.pieces) bytes += piece.text.size();
  // Characters that are in pieces without being one, each once.
  Vocabulary pieces;
  pieces.reserve(file.pieces.size(), bytes, num_pieces_);
  bool has_unused = false;
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const auto& piece = file.pieces[id];
    if (stands_in_text(piece.type)) pieces.add(piece.text, static_cast<int32_t>(id));
    has_unused |= piece.type == PieceType::kUnused;
  }
  std::vector<std::string_view> characters;
  for (const auto& piece : file.pieces) {
    if (!stands_in_text(piece.type)) continue;
    for (size_t at = 0; at < piece.text.size();) {
      const size_t size = decode_char(piece.text.data() + at).size;
      const auto character = piece.text.substr(at, size);
      if (!pieces.find(character)) characters.push_back(character);
      at += size;
    }
  }
  std::sort(characters.begin(), characters.end());
  characters.erase(std::unique(characters.begin(), characters.end()), characters.end());

  symbols_.reserve(file.pieces.size() + characters.size(), bytes + 4 * characters.size(),
                   num_pieces_ + static_cast<int32_t>(characters.size()) - 1);
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const auto& piece = file.pieces[id];
    if (stands_in_text(piece.type) || piece.type == PieceType::kByte) {
      symbols_.add(piece.text, static_cast<int32_t>(id));
    }
  }
  int32_t next = num_pieces_;
  for (const auto character : characters) symbols_.add(character, next++);

  std::vector<bool> unused;
  if (has_unused) {
    unused.resize(static_cast<size_t>(symbols_.end_id()) + 1);
    for (size_t id = 0; id < file.pieces.size(); ++id) {
      unused[id] = file.pieces[id].type == PieceType::kUnused;
    }
  }
  return unused;
}

MergeTable SentencePieceBpe::read_merges(const SentencePieceFile& file, const std::string& source) {
  const auto type = [&](int32_t id) {
    return id < num_pieces_ ? file.pieces[static_cast<size_t>(id)].type : PieceType::kNormal;
  };
  const auto score = [&](int32_t id) { return file.pieces[static_cast<size_t>(id)].score; };
  // Equal scores have equal ranks.
  std::vector<float> scores;
  for (const auto& piece : file.pieces) scores.push_back(piece.score);
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());

  // Between characters that are no piece, unknown ones may have to be joined: no cutting there.
  const bool cuts = symbols_.end_id() == num_pieces_;
  if (cuts) cutter_ = std::make_unique<PieceCutter>(symbols_);
  ImpliedMerges rules;
  rules.takes_part = [&](int32_t id) {
    return type(id) == PieceType::kNormal || type(id) == PieceType::kUnused;
  };
  rules.rank = [&](int32_t id) {
    const auto place = std::lower_bound(scores.begin(), scores.end(), score(id), std::greater<>());
    return static_cast<uint32_t>(place - scores.begin());
  };
  if (cuts) rules.seen = [&](auto left, auto right) { cutter_->join(left, right); };
  for (const auto& piece : file.pieces) {
    if (!cuts || piece.type != PieceType::kUserDefined) continue;
    for (size_t at = decode_char(piece.text.data()).size; at < piece.text.size();) {
      cutter_->join(piece.text.substr(0, at), piece.text.substr(at));
      at += decode_char(piece.text.data() + at).size;
    }
  }
  return implied_merges(symbols_, rules, source);
}

std::unique_ptr<Model::Scratch> SentencePieceBpe::make_scratch() const {
  auto buffers = std::make_unique<Buffers>();
  buffers->bpe = bpe_->make_scratch();
  return buffers;
}

std::string SentencePieceBpe::kind() const {
  return fmt::format("SentencePiece {}{}", merges_ ? "BPE" : "characters",
                     byte_fallback_ ? " with byte fallback" : "");
}

void SentencePieceBpe::encode_symbols(std::string_view piece, Buffers& buffers) const {
  auto& symbols = buffers.symbols;
  symbols.clear();
  size_t done = 0;
  const auto encode_up_to = [&](size_t end) {
    if (done < end) bpe_->encode(piece.substr(done, end - done), *buffers.bpe, symbols);
  };
  for (size_t at = 0; !user_defined_->empty() && at < piece.size();) {
    int32_t id = 0;
    const size_t end = user_defined_->longest(piece, at, id);
    if (end == at) {
      at += decode_char(piece.data() + at).size;
      continue;
    }
    encode_up_to(at);
    symbols.push_back(id);
    at = done = end;
  }
  encode_up_to(piece.size());
}

void SentencePieceBpe::encode(std::string_view piece, Scratch& scratch,
                              std::vector<int32_t>& ids) const {
  auto& buffers = static_cast<Buffers&>(scratch);
  encode_symbols(piece, buffers);
  bool after_unknown = false;
  for (const int32_t symbol : buffers.symbols) {
    const bool unknown = symbol >= num_pieces_;
    if (!unknown) {
      ids.push_back(symbol);
    } else if (byte_fallback_) {
      for (const char c : symbols_.token(symbol)) {
        ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
      }
    } else if (!after_unknown) {  // neighbouring unknown characters are one
      ids.push_back(unk_id_);
    }
    after_unknown = unknown;
  }
}

}  // namespace qianli::text
