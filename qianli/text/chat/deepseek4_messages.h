// Messages as DeepSeek-V4's layout takes them. Internal to deepseek4.cpp.
#pragma once

#include <string>
#include <vector>

#include "qianli/text/chat/message.h"

namespace qianli::text::chat {

inline constexpr const char* kThinkBegin = "<think>";
inline constexpr const char* kThinkEnd = "</think>";

// A message as this layout sees it: results of tools have become blocks of a user message.
struct Entry {
  Message message;
  std::vector<std::string> blocks;  // of a user message
};

// Checks tools, splits thoughts from answers, gives results of tools their places.
std::vector<Entry> deepseek4_entries(const Conversation& conversation);

}  // namespace qianli::text::chat
