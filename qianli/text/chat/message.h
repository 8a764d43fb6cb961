// What a conversation is before any template sees it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/base/json.h"

namespace qianli::text::chat {

enum class Role {
  kSystem,
  kDeveloper,
  kUser,
  kAssistant,
  kFunction,     // the assistant calls tools; content is JSON {name, arguments} or a list of them
  kObservation,  // what a tool gave back
  kLatestReminder,  // of deepseek4
};

struct ToolCall {
  std::string id, name;
  std::string arguments;  // JSON
};

struct Message {
  Role role = Role::kUser;
  std::string content;
  std::optional<std::string> reasoning;  // reasoning_content
  std::vector<ToolCall> tool_calls;
  std::string tool_call_id;
  // Of deepseek4.
  std::string task;
  OrderedJson tools, response_format;  // null where absent
  bool without_eos = false;
};

struct Conversation {
  std::vector<Message> messages;
  std::string system;  // of the sample; a leading system message wins over it
  OrderedJson tools;   // a list, or null
};

// A list of messages, or an object with "messages" and perhaps "system" and "tools". A message has
// role and content (a text, null, or a list of parts with a text), and perhaps name, tool_calls,
// tool_call_id, reasoning_content, task, tools, response_format, wo_eos; from and value stand for
// role and content too. Roles: system, developer, user, human, assistant, gpt, function,
// function_call, observation, tool, latest_reminder. Throws DataError with the message's number.
Conversation read_conversation(const OrderedJson& json, const std::string& source);

// json.dumps(value, ensure_ascii=False) as Python writes it: ", " and ": ", floats by repr.
std::string python_json(const OrderedJson& json);
// Where the text is no JSON: nothing. Depth is limited.
std::optional<OrderedJson> try_json(std::string_view text);

}  // namespace qianli::text::chat
