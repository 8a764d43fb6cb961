// What the JSON files beside a tokenizer say about it: the tokens to look for in texts and, where
// there is no tokenizer.json, how texts are read.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "qianli/text/tokenizer_impl.h"

namespace qianli::text {

struct FolderConfig {
  TokenizerConfig main;
  // "added_tokens_decoder" of tokenizer_config.json, and added_tokens.json, by ascending id.
  std::vector<AddedToken> added;
  // What stands beside a tokenizer.json; in the order of read_extra_tokens.
  std::vector<AddedToken> extra;
  // "additional_special_tokens": tokens that have an id already, or else get the next free ones.
  std::vector<std::string> additional_special_tokens;
  std::optional<std::string> cls_token, sep_token, mask_token;
  // SentencePiece: whether text behind an added token begins with a space, too (the default).
  std::optional<bool> legacy;
  std::optional<bool> add_prefix_space, do_lower_case, strip_accents, tokenize_chinese_chars;

  // tokenizer_class without "Fast" at its end.
  std::string class_name() const;
};
// Throws DataError naming file and key for what is there and cannot be read.
FolderConfig read_folder_config(const fs::path& folder);

// Adds the tokens that `config` names and prepares all added tokens for finding. To be called
// once, after the vocabulary and tokens of its own are known. Throws DataError where a token would
// get two ids or an id two tokens.
void add_configured_tokens(const FolderConfig& config, TokenizerImpl& tokenizer);
// One token; of the same id or content it replaces what is there.
void put_added_token(AddedToken token, TokenizerImpl& tokenizer);
// Puts bos and eos around texts as add_bos_token and add_eos_token say, or else as the reader set
// puts_bos and puts_eos. To be called when their ids are known.
void put_bos_and_eos(const FolderConfig& config, TokenizerImpl& tokenizer);

}  // namespace qianli::text
