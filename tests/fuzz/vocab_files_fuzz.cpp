// vocab.json with merges.txt, and vocab.txt, from strangers: file, NUL byte, merges, NUL byte,
// text.
#include "qianli/base/error.h"
#include "tests/fuzz/tokenizer_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  const std::string zero(1, '\0');
  const auto [vocab, rest] =
      fuzz::split_input(std::string(reinterpret_cast<const char*>(data), size), zero, "");
  const auto [merges, text] = fuzz::split_input(rest, zero, fuzz::kSomeText);
  for (const char* name : {"vocab.json", "vocab.txt"}) {
    try {
      fuzz::use_tokenizer(text::Tokenizer::from_bytes(name, vocab, "input", merges), text);
    } catch (const Error&) {
    }
  }
  return 0;
}
