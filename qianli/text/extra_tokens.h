// Tokens that the files beside a tokenizer.json name: transformers adds those that the
// tokenizer.json lacks. Internal to the room.
#pragma once

#include <vector>

#include "qianli/text/added_tokens.h"
#include "qianli/text/tokenizer_impl.h"

namespace qianli::text {

// In the order in which transformers 5 adds them: added_tokens_decoder of tokenizer_config.json by
// id, bos_token and its kin, other keys "…_token" and extra_special_tokens as an object, and
// extra_special_tokens (or additional_special_tokens) as a list. Where there is no
// added_tokens_decoder, added_tokens.json and special_tokens_map.json stand in. An id is what the
// file says, or -1. Throws DataError naming file and key.
std::vector<AddedToken> read_extra_tokens(const fs::path& folder);

// Adds those that are not among the added tokens yet. Whatever id the file says, transformers gives
// the model's id for the same text, or else the next free one; a warning tells where that is
// another. To be called before finish_added_tokens.
void add_extra_tokens(const std::vector<AddedToken>& tokens, TokenizerImpl& tokenizer);

}  // namespace qianli::text
