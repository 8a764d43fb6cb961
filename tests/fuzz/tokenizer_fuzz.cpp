// Tokenizer files from strangers: a tokenizer.json up to the first NUL byte, then a text.
#include "qianli/text/tokenizer.h"

#include <algorithm>
#include <string>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  log::set_level(log::Level::kError);
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), input.size());
  const std::string text =
      end < input.size() ? input.substr(end + 1) : "Hello 12 \xE4\xBD\xA0\xFF the";
  try {
    const auto tokenizer = text::Tokenizer::from_json(input.substr(0, end), "input");
    const auto ids = tokenizer->encode(text, true);
    // The second time the piece cache answers.
    fuzz::require(tokenizer->encode(text, true) == ids, "encoding gives the same ids again");
    text::StreamingDecoder stream(tokenizer);
    std::string streamed;
    for (const int32_t id : ids) {
      fuzz::require(id >= 0 && id < tokenizer->vocab_size(), "ids are below the vocabulary's size");
      streamed += stream.push(id);
    }
    streamed += stream.finish();
    fuzz::require(streamed == tokenizer->decode(ids, false), "a stream decodes as the whole list");
  } catch (const Error&) {
  }
  return 0;
}
