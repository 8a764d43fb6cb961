// Conversations from strangers, through every named template.
#include <string_view>

#include "qianli/base/error.h"
#include "qianli/text/chat/turns.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  using namespace qianli::text::chat;
  Conversation conversation;
  try {
    conversation = read_conversation(
        parse_ordered_json({reinterpret_cast<const char*>(data), size}, "input", FileRole::kData),
        "input");
  } catch (const Error&) {
    return 0;
  }
  for (const NamedTemplate& named : named_templates()) {
    for (const Thinking thinking : {Thinking::kUnset, Thinking::kOff, Thinking::kOn}) {
      try {
        const Turns turns = render_turns(named, conversation,
                                         {.thinking = thinking, .last_answer_only = size % 2 == 0});
        for (const Turn& turn : turns.turns) {
          for (const Part& part : turn.source) {
            fuzz::require(part.kind != Part::Kind::kText || !part.text.empty() ||
                              named.kind == TemplateClass::kDeepSeek4,
                          "no part is an empty text");
          }
        }
      } catch (const Error&) {
      }
    }
  }
  return 0;
}
