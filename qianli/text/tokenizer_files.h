// Which files of a folder make its tokenizer. Internal to the room.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "qianli/base/file.h"

namespace qianli::text {

enum class TokenizerFileKind {
  kJson,            // tokenizer.json, tokenizer.json.gz
  kSentencePiece,   // tokenizer.model and other names
  kRanks,           // *.tiktoken, and Llama 3's tokenizer.model
  kTekken,          // tekken.json
  kVocabAndMerges,  // vocab.json with merges.txt
  kVocabLines,      // vocab.txt
};
// The one that goes first, in this order: tokenizer.json, model and rank files, tekken.json,
// vocab.json, vocab.txt. A path to a file is that file.
std::optional<fs::path> find_tokenizer_file(const fs::path& folder_or_file);
// By the name and, where that does not say, by what the file begins with.
TokenizerFileKind kind_of_tokenizer_file(std::string_view name, std::string_view bytes);

}  // namespace qianli::text
