// Chat templates from strangers: a template up to the first NUL byte, then messages as JSON.
#include <algorithm>
#include <string>

#include "qianli/base/error.h"
#include "qianli/text/jinja/template.h"
#include "tests/fuzz/fuzz.h"

namespace {

constexpr const char* kMessages =
    R"([{"role":"user","content":"Hi é","name":"n"},{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":{"x":[1,2.5]}}}]}])";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), input.size());
  // Small enough that no input takes long.
  const text::jinja::Limits limits{.steps = 200'000, .memory_bytes = size_t{1} << 25, .depth = 300};
  try {
    const text::jinja::Template chat(input.substr(0, end), "input");
    const std::string messages = end < input.size() ? input.substr(end + 1) : kMessages;
    const OrderedJson variables = {
        {"messages", parse_ordered_json(messages, "input", FileRole::kData)},
        {"add_generation_prompt", true},
        {"tools", nullptr},
        {"bos_token", "<s>"},
        {"n", 7},
        {"l", {3, 1, 2}},
        {"s", "Hello"}};
    const auto rendered = chat.render(variables, std::tm{}, limits);
    const auto again = chat.render(variables, std::tm{}, limits);
    fuzz::require(rendered.text == again.text, "a template renders alike twice");
    for (const auto& range : rendered.generations) {
      fuzz::require(range.begin <= range.end, "a range ends behind its begin");
      fuzz::require(rendered.nested_generation || range.end <= rendered.text.size(),
                    "ranges lie within the text");
    }
  } catch (const Error&) {
  }
  return 0;
}
