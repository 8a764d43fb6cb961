// Tokens that stand for one byte: "<0x0A>".
#pragma once

#include <array>
#include <string_view>

#include "qianli/text/vocabulary.h"

namespace qianli::text {

// The byte of "<0xHH>", or -1.
int byte_of_token(std::string_view token);
// The id of every byte's token, or -1. Only upper-case digits count, as when text is encoded.
std::array<int32_t, 256> byte_token_ids(const Vocabulary& vocabulary);

}  // namespace qianli::text
