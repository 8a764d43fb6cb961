// How tools and calls of tools stand in a text.
#pragma once

#include <optional>
#include <string>

#include "qianli/text/chat/message.h"
#include "qianli/text/chat/named_template.h"

namespace qianli::text::chat {

// What follows the system text. `tools`: a list of {name, description, parameters}, or of OpenAI's
// {type, function}. Throws DataError naming the tool that does not fit, and for formats that no
// program ever defined (glm4).
std::string tools_text(ToolFormat format, const OrderedJson& tools);

// A message of the role function as its slot wants it.
struct FunctionText {
  std::string name, arguments;  // of the first call; both empty where the content is no call
  bool understood = true;
};
FunctionText name_and_arguments(const std::string& content);
// "<tool_call>...</tool_call>" for each call; a thought in front stays there. Throws DataError.
std::string json_calls(const std::string& content);

}  // namespace qianli::text::chat
