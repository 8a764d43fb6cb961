#include "qianli/text/sentencepiece_file.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/wire.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

constexpr const char* kComponent = "tokenizer";
constexpr size_t kMaxPieceBytes = 8000;
constexpr size_t kMaxPieces = size_t{1} << 24;

using Type = WireField::Type;

class FileParser {
 public:
  explicit FileParser(const std::string& source) : source_(source) {}

  SentencePieceFile parse(std::string_view bytes) {
    WireReader reader(bytes, kComponent, source_);
    while (const auto field = reader.next()) {
      if (field->type != Type::kBytes) continue;
      if (field->number == 1) read_piece(field->bytes);
      if (field->number == 2) read_trainer(field->bytes);
      if (field->number == 3) read_normalizer(field->bytes);
      if (field->number == 5) read_denormalizer(field->bytes);
    }
    if (file_.pieces.empty()) refuse("pieces", "none");
    return std::move(file_);
  }

 private:
  [[noreturn]] void refuse(const std::string& expected, const std::string& got) const {
    throw DataError(kComponent, fmt::format("expected {} in {}, got {}", expected, source_, got));
  }

  void read_piece(std::string_view bytes) {
    SentencePieceFile::Piece piece;
    WireReader reader(bytes, kComponent, source_);
    while (const auto field = reader.next()) {
      if (field->number == 1 && field->type == Type::kBytes) piece.text = field->bytes;
      if (field->number == 2 && field->type == Type::kFixed32) piece.score = field->float32();
      if (field->number == 3 && field->type == Type::kVarint) piece.type = piece_type(*field);
    }
    const size_t id = file_.pieces.size();
    if (id == kMaxPieces) refuse(fmt::format("at most {} pieces", kMaxPieces), "more");
    if (piece.text.empty() || piece.text.size() >= kMaxPieceBytes) {
      refuse(fmt::format("pieces of 1 to {} bytes", kMaxPieceBytes - 1),
             fmt::format("piece {} of {}", id, piece.text.size()));
    }
    if (valid_utf8_prefix(piece.text) != piece.text.size()) {
      refuse("pieces in UTF-8", fmt::format("piece {} that is not", id));
    }
    if (!(piece.score - piece.score == 0)) {
      refuse("finite scores", fmt::format("another at piece {}", id));
    }
    file_.pieces.push_back(piece);
  }

  SentencePieceFile::PieceType piece_type(const WireField& field) const {
    if (field.value < 1 || field.value > 6) {
      refuse("a type from 1 to 6", fmt::format("{} at piece {}", field.value, file_.pieces.size()));
    }
    return static_cast<SentencePieceFile::PieceType>(field.value);
  }

  void read_trainer(std::string_view bytes) {
    WireReader reader(bytes, kComponent, source_);
    while (const auto field = reader.next()) {
      if (field->type == Type::kVarint) {
        if (field->number == 3) file_.model_type = model_type(*field);
        if (field->number == 24) file_.treat_whitespace_as_suffix = field->truth();
        if (field->number == 35) file_.byte_fallback = field->truth();
      } else if (field->type == Type::kBytes) {
        if (field->number == 44) file_.unk_surface = field->bytes;
        read_name(*field, 45, file_.unk_piece);
        read_name(*field, 46, file_.bos_piece);
        read_name(*field, 47, file_.eos_piece);
        read_name(*field, 48, file_.pad_piece);
      }
    }
    if (valid_utf8_prefix(file_.unk_surface) != file_.unk_surface.size()) {
      refuse("an unk_surface in UTF-8", "another");
    }
  }

  static void read_name(const WireField& field, uint32_t number, std::string_view& name) {
    if (field.number == number && !field.bytes.empty()) name = field.bytes;
  }

  SentencePieceFile::ModelType model_type(const WireField& field) const {
    if (field.value < 1 || field.value > 4) {
      refuse("a model type from 1 to 4", fmt::format("{}", field.value));
    }
    return static_cast<SentencePieceFile::ModelType>(field.value);
  }

  void read_normalizer(std::string_view bytes) {
    WireReader reader(bytes, kComponent, source_);
    while (const auto field = reader.next()) {
      if (field->number == 2 && field->type == Type::kBytes) file_.charsmap = field->bytes;
      if (field->type != Type::kVarint) continue;
      if (field->number == 3) file_.add_dummy_prefix = field->truth();
      if (field->number == 4) file_.remove_extra_whitespaces = field->truth();
      if (field->number == 5) file_.escape_whitespaces = field->truth();
    }
  }

  void read_denormalizer(std::string_view bytes) {
    WireReader reader(bytes, kComponent, source_);
    while (const auto field = reader.next()) {
      if (field->number == 2 && field->type == Type::kBytes) {
        file_.has_denormalizer = !field->bytes.empty();
      }
    }
  }

  const std::string& source_;
  SentencePieceFile file_;
};

}  // namespace

size_t SentencePieceFile::id_of(PieceType type, std::string_view text) const {
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].type == type && pieces[id].text == text) return id;
  }
  return npos;
}

SentencePieceFile parse_sentencepiece(std::string_view bytes, const std::string& source) {
  return FileParser(source).parse(bytes);
}

}  // namespace qianli::text
