// SentencePiece models from strangers; behind the eight bytes "\ntext:\n\n" stands a text.
#include "qianli/base/error.h"
#include "tests/fuzz/tokenizer_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  const auto [model, text] = fuzz::split_input(
      std::string(reinterpret_cast<const char*>(data), size), "\ntext:\n\n", fuzz::kSomeText);
  try {
    fuzz::use_tokenizer(text::Tokenizer::from_bytes("tokenizer.model", model, "input"), text);
  } catch (const Error&) {
  }
  return 0;
}
