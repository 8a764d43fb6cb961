// Tokenizer files from strangers: a tokenizer.json up to the first NUL byte, then a text. Anything
// but an error for users is a finding, and so are a stream that decodes differently from the whole
// list and ids outside the vocabulary.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  log::set_level(log::Level::kError);
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), input.size());
  const std::string text = end < input.size() ? input.substr(end + 1) : "Hello 12 \xE4\xBD\xA0\xFF";
  try {
    const auto tokenizer = text::Tokenizer::from_json(input.substr(0, end), "fuzz.json");
    const auto ids = tokenizer->encode(text, true);
    if (tokenizer->encode(text, true) != ids) std::abort();
    text::StreamingDecoder stream(tokenizer);
    std::string streamed;
    for (const int32_t id : ids) {
      if (id < 0 || id >= tokenizer->vocab_size()) std::abort();
      streamed += stream.push(id);
    }
    streamed += stream.finish();
    if (streamed != tokenizer->decode(ids, false)) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
