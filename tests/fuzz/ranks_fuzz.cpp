// Rank files and tekken.json from strangers: up to the first NUL byte, then a text. Besides the
// lines themselves, the same lines behind those of all 256 bytes, so that most inputs are
// tokenizers.
#include "qianli/base/error.h"
#include "tests/fuzz/tokenizer_target.h"

namespace {

using namespace qianli;

void use(const char* name, const std::string& bytes, const std::string& text) {
  try {
    fuzz::use_tokenizer(text::Tokenizer::from_bytes(name, bytes, "input"), text);
  } catch (const Error&) {
  }
}

// "AA== 0" to "/w== 255".
std::string lines_of_bytes() {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string lines;
  for (int byte = 0; byte < 256; ++byte) {
    lines += {kDigits[byte >> 2], kDigits[(byte & 3) << 4], '=', '=', ' '};
    lines += std::to_string(byte) + "\n";
  }
  return lines;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto [file, text] =
      fuzz::split_input(std::string(reinterpret_cast<const char*>(data), size),
                        std::string(1, '\0'), fuzz::kSomeText);
  static const std::string kBytes = lines_of_bytes();
  use("qwen.tiktoken", file, text);
  use("cl100k_base.tiktoken", kBytes + file, text);
  use("tekken.json", file, text);
  return 0;
}
