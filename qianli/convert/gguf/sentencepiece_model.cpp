// Field numbers: sentencepiece_model.proto.
#include <bit>
#include <cstring>

#include "qianli/convert/gguf/tokenizer.h"

namespace qianli::convert {
namespace {

enum WireType { kVarint = 0, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128);
  out += static_cast<char>(value);
}
void put_key(std::string& out, uint64_t field, WireType type) {
  put_varint(out, field << 3 | type);
}
void put_number(std::string& out, uint64_t field, uint64_t value) {
  put_key(out, field, kVarint);
  put_varint(out, value);
}
void put_bytes(std::string& out, uint64_t field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}
void put_float(std::string& out, uint64_t field, float value) {
  put_key(out, field, kFixed32);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(bits >> shift);
}

// User-defined pieces are looked for in texts whose spaces are escaped.
std::string escaped(const Piece& piece) {
  if (piece.type != GgufToken::kUserDefined) return piece.text;
  std::string text;
  for (const char c : piece.text) text += c == ' ' ? "\u2581" : std::string(1, c);
  return text;
}

}  // namespace

std::string sentencepiece_model(const std::vector<Piece>& pieces, bool add_dummy_prefix,
                                bool remove_extra_whitespaces) {
  std::string model;
  bool bytes = false;
  for (const Piece& piece : pieces) {
    std::string one;
    put_bytes(one, 1, escaped(piece));
    put_float(one, 2, piece.score);
    put_number(one, 3, static_cast<uint64_t>(piece.type));
    put_bytes(model, 1, one);
    bytes = bytes || piece.type == GgufToken::kByte;
  }
  std::string trainer;
  put_number(trainer, 3, 2);  // model_type: BPE
  put_number(trainer, 4, pieces.size());
  put_number(trainer, 35, bytes ? 1 : 0);  // byte_fallback
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].type == GgufToken::kUnknown) put_number(trainer, 40, id);
  }
  put_bytes(model, 2, trainer);
  std::string normalizer;
  put_bytes(normalizer, 1, "identity");
  put_number(normalizer, 3, add_dummy_prefix ? 1 : 0);
  put_number(normalizer, 4, remove_extra_whitespaces ? 1 : 0);
  put_number(normalizer, 5, 1);  // escape_whitespaces
  put_bytes(model, 3, normalizer);
  return model;
}

}  // namespace qianli::convert
