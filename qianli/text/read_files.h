// Tokenizers from other files than tokenizer.json. Each fills everything but config, fingerprint
// and the ids of special tokens that the configuration names. Internal to the room.
#pragma once

#include <string_view>

#include "qianli/text/byte_tokens.h"
#include "qianli/text/folder_config.h"

namespace qianli::text {

// tokenizer.model of SentencePiece.
void read_sentencepiece(std::string_view bytes, const FolderConfig& config,
                        TokenizerImpl& tokenizer);
// Lines of base64 and rank (tiktoken); `name` is the file's, which tells the family.
void read_ranks(std::string_view text, std::string_view name, const FolderConfig& config,
                TokenizerImpl& tokenizer);
// tekken.json.
void read_tekken(std::string_view json, const FolderConfig& config, TokenizerImpl& tokenizer);
// vocab.json and merges.txt.
void read_vocab_and_merges(std::string_view vocab, std::string_view merges,
                           const FolderConfig& config, TokenizerImpl& tokenizer);
// vocab.txt of BERT: a token in every line.
void read_vocab_lines(std::string_view text, const FolderConfig& config, TokenizerImpl& tokenizer);

}  // namespace qianli::text
