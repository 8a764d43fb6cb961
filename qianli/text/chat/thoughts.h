// What reasoning templates do with <think> ... </think>. The words are compared without the line
// feeds around them, so that "<think>x</think>y" counts as a thought too.
#pragma once

#include <vector>

#include "qianli/text/chat/turns.h"

namespace qianli::text::chat {

// Takes thoughts out of the answers (odd messages) that lose them by these options.
void remove_thoughts(const NamedTemplate& named, Thinking thinking, bool last_answer_only,
                     std::vector<Message>& messages);
// Puts an empty thought beside answers without one: at the end of the source, or with thinking on
// at the start of the target. turns[i] holds messages 2i and 2i + 1.
void mark_absent_thoughts(const NamedTemplate& named, Thinking thinking, bool last_answer_only,
                          const std::vector<Message>& messages, std::vector<Turn>& turns);

}  // namespace qianli::text::chat
