// What turns a document into tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/text/tokenizer.h"

namespace qianli::data {

struct DocumentEncoder {
  // Called from many threads.
  std::function<void(std::string_view text, std::vector<int32_t>& ids)> encode;  // appends
  int64_t vocab_size = 0;
  std::optional<int32_t> eod;  // the end-of-document token
  std::string fingerprint;
};
// With the special tokens the tokenizer's file asks for; its end-of-sentence token ends documents.
DocumentEncoder document_encoder(std::shared_ptr<const text::Tokenizer> tokenizer);

}  // namespace qianli::data
