// Conversations as a model's own template takes them.
#pragma once

#include "qianli/text/chat/message.h"

namespace qianli::data {

// A list of OpenAI's messages: function messages have become tool_calls of the assistant, the
// sample's system text a message. DataError where a function message holds no call.
OrderedJson openai_messages(const text::chat::Conversation& conversation);
OrderedJson openai_message(const text::chat::Message& message);

// Beside calls of tools, some templates want an empty content and arguments as an object, others
// null and the arguments as a text: the messages the other way round.
OrderedJson other_spelling(OrderedJson messages);

}  // namespace qianli::data
