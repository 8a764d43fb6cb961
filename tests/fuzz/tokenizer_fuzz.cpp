// Tokenizer files from strangers: a tokenizer.json up to the first NUL byte, then a text.
#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "tests/fuzz/tokenizer_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  log::set_level(log::Level::kError);
  const auto [json, text] =
      fuzz::split_input(std::string(reinterpret_cast<const char*>(data), size),
                        std::string(1, '\0'), fuzz::kSomeText);
  try {
    fuzz::use_tokenizer(text::Tokenizer::from_json(json, "input"), text);
  } catch (const Error&) {
  }
  return 0;
}
