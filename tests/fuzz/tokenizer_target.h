// What must hold of every tokenizer that a file gives, whatever the file.
#pragma once

#include <memory>
#include <string>

#include "qianli/text/tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace qianli::fuzz {

inline void use_tokenizer(const std::shared_ptr<const text::Tokenizer>& tokenizer,
                          const std::string& text) {
  const auto ids = tokenizer->encode(text, true);
  // The second time the piece cache answers.
  require(tokenizer->encode(text, true) == ids, "encoding gives the same ids again");
  text::StreamingDecoder stream(tokenizer);
  std::string streamed;
  for (const int32_t id : ids) {
    require(id >= 0 && id < tokenizer->vocab_size(), "ids are below the vocabulary's size");
    streamed += stream.push(id);
  }
  streamed += stream.finish();
  require(streamed == tokenizer->decode(ids, false), "a stream decodes as the whole list");
}

// `data` up to the first `separator`, and what comes behind it.
inline std::pair<std::string, std::string> split_input(const std::string& data,
                                                       const std::string& separator,
                                                       const std::string& otherwise) {
  const size_t end = data.find(separator);
  if (end == std::string::npos) return {data, otherwise};
  return {data.substr(0, end), data.substr(end + separator.size())};
}

inline const std::string kSomeText = "Hello 12 \xE4\xBD\xA0\xFF the  e\xCC\x81\xE2\x96\x81<s>";

}  // namespace qianli::fuzz
