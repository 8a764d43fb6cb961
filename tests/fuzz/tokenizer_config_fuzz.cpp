// tokenizer_config.json from strangers: tokens and chat templates, then a render of each template.
#include <string_view>

#include "qianli/base/error.h"
#include "qianli/text/chat/model_template.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  using namespace qianli::text;
  chat::ModelTemplateFiles files;
  try {
    files.read_config({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const Error&) {
    return 0;
  }
  const chat::ChatRequest request{.messages = {{{"role", "user"}, {"content", "Hi"}}}};
  for (const auto& [name, source] : files.templates) {
    try {
      const chat::ModelTemplate model(files, name, false);
      model.render(request, {.steps = 100'000, .memory_bytes = size_t{1} << 25, .depth = 300});
    } catch (const Error&) {
    }
  }
  return 0;
}
