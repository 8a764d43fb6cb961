// A conversation as pairs of what is asked and what is learnt, by one of the named templates.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "qianli/text/chat/message.h"
#include "qianli/text/chat/named_template.h"

namespace qianli::text::chat {

struct Turn {
  Slot source;           // no loss
  Slot target;           // loss
  bool answered = true;  // false where the conversation ends with a question
};

struct Turns {
  std::vector<Turn> turns;
  // The template's: see NamedTemplate.
  bool efficient_eos = false;
  // What was rendered, but hardly as meant: "message 3: ...".
  std::vector<std::string> warnings;
};

enum class Thinking { kUnset, kOff, kOn };

struct TurnOptions {
  // Of reasoning templates. Off removes thoughts. An answer without a thought gets an empty one: on
  // its own side where on, on the side of the question else.
  Thinking thinking = Thinking::kUnset;
  // Only the last answer is learnt (preference pairs, prompts): thoughts of earlier ones go.
  bool last_answer_only = false;
  // In the place of the template's default.
  std::optional<std::string> default_system;
  // Of deepseek4.
  bool drop_thinking = true;
  std::string reasoning_effort;  // "", "none", "high" or "max"
};

// Messages alternate: user or observation, then assistant or function, behind system messages at
// the start. Throws DataError naming the message that does not fit.
Turns render_turns(const NamedTemplate& named, const Conversation& conversation,
                   const TurnOptions& options = {});

// With the texts of the tokens `bos` and `eos`.
std::string to_text(std::span<const Part> parts, const std::string& bos, const std::string& eos);

}  // namespace qianli::text::chat
