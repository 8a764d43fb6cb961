// DeepSeek-V4's layout of a conversation, which no table of slots can give: thoughts of earlier
// turns are dropped, results of tools join the next question, calls are written in tags of their
// own.
#pragma once

#include "qianli/text/chat/turns.h"

namespace qianli::text::chat {

// Every assistant message is a target; where only the last one is wanted, the earlier ones are part
// of its source. Throws DataError naming the message or tool that does not fit.
Turns render_deepseek4(const Conversation& conversation, const TurnOptions& options);

}  // namespace qianli::text::chat
