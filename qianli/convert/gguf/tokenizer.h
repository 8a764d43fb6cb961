// A model's tokenizer in a GGUF file. llama.cpp knows byte-level BPE ("gpt2") by its tokens, merges
// and the name of a rule that cuts texts into words, and SentencePiece's BPE ("llama") by its
// pieces and their scores.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "qianli/formats/gguf.h"
#include "qianli/model/companion_files.h"

namespace qianli::convert {

// The keys for the tokenizer files beside a model of `vocab_size` tokens; tokenizer.json goes along
// whole under tokenizer.huggingface.json, which the format has for it. Where there is no file of a
// kind that llama.cpp knows, a warning says so. Throws DataError for files that cannot be read.
formats::GgufMetadata tokenizer_metadata(const std::vector<model::CompanionFile>& files,
                                         int64_t vocab_size);

// The files that give the tokenizer of a GGUF file: tokenizer.json or tokenizer.model, and
// tokenizer_config.json. Nothing, and a warning, for kinds and rules that are not known here.
std::vector<model::CompanionFile> tokenizer_files(const formats::GgufFile& file);

// Rules that cut texts into words, by the name that llama.cpp has for them and by what stands in a
// tokenizer.json: steps "Digits", "ByteLevel" (with GPT-2's own rule), "Bytes" (without one) or a
// regular expression whose matches stand alone.
struct WordRule {
  std::vector<std::string_view> names;  // the first is written
  std::vector<std::string_view> steps;
  bool ignore_merges = false;  // words that are tokens need no merges
  bool nfc = false;
};
const std::vector<WordRule>& word_rules();

// GGUF's tokenizer.ggml.token_type: SentencePiece's numbers.
enum class GgufToken : int32_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct Piece {
  std::string text;
  float score = 0;
  GgufToken type = GgufToken::kNormal;
};
// SentencePiece's model file of these pieces: BPE with bytes for what has no piece.
std::string sentencepiece_model(const std::vector<Piece>& pieces, bool add_dummy_prefix,
                                bool remove_extra_whitespaces);

}  // namespace qianli::convert
