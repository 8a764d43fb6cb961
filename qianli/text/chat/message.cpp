#include "qianli/text/chat/message.h"

#include <fmt/core.h>

#include <array>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::text::chat {
namespace {

constexpr std::pair<std::string_view, Role> kRoles[] = {{"system", Role::kSystem},
                                                        {"developer", Role::kDeveloper},
                                                        {"user", Role::kUser},
                                                        {"human", Role::kUser},
                                                        {"assistant", Role::kAssistant},
                                                        {"gpt", Role::kAssistant},
                                                        {"function", Role::kFunction},
                                                        {"function_call", Role::kFunction},
                                                        {"observation", Role::kObservation},
                                                        {"tool", Role::kObservation},
                                                        {"latest_reminder", Role::kLatestReminder}};

// Knows which message it reads, for complaints.
class MessageReader {
 public:
  MessageReader(const OrderedJson& json, std::string place)
      : json_(json), place_(std::move(place)) {}

  Message read() const {
    if (!json_.is_object()) refuse("an object");
    Message message;
    message.role = role();
    message.content = content(find("content") ? "content" : "value");
    if (const OrderedJson* reasoning = find("reasoning_content")) {
      message.reasoning = string(*reasoning, "reasoning_content");
    }
    message.tool_call_id = string_or_empty("tool_call_id");
    message.task = string_or_empty("task");
    if (const OrderedJson* tools = find("tools")) message.tools = *tools;
    if (const OrderedJson* format = find("response_format")) message.response_format = *format;
    if (const OrderedJson* without = find("wo_eos"))
      message.without_eos = without->is_boolean() && *without;
    if (const OrderedJson* calls = find("tool_calls")) message.tool_calls = tool_calls(*calls);
    return message;
  }

 private:
  [[noreturn]] void refuse(const std::string& expected) const {
    throw DataError("chat", fmt::format("expected {} at {}", expected, place_));
  }

  // Absent and null are alike.
  const OrderedJson* find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }

  std::string string(const OrderedJson& value, const char* key) const {
    if (!value.is_string()) refuse(fmt::format("a text as '{}'", key));
    return value.get<std::string>();
  }

  std::string string_or_empty(const char* key) const {
    const OrderedJson* value = find(key);
    return value ? string(*value, key) : std::string();
  }

  Role role() const {
    const OrderedJson* value = find("role");
    if (!value) value = find("from");
    if (!value) refuse("a 'role'");
    const std::string name = string(*value, "role");
    std::vector<std::string> known;
    for (const auto& [known_name, role] : kRoles) {
      if (known_name == name) return role;
      known.emplace_back(known_name);
    }
    throw DataError(
        "chat", fmt::format("unknown role '{}'{} at {}", name, suggestion(name, known), place_));
  }

  std::string content(const char* key) const {
    const OrderedJson* value = find(key);
    if (!value) return {};
    if (!value->is_array()) return string(*value, key);
    std::string text;
    for (const OrderedJson& part : *value) {
      if (!part.is_object() || part.value("type", OrderedJson()) != "text" ||
          !part.contains("text")) {
        refuse("content of text parts (a template of its own can take others)");
      }
      text += string(part["text"], "text");
    }
    return text;
  }

  std::vector<ToolCall> tool_calls(const OrderedJson& calls) const {
    if (!calls.is_array()) refuse("a list as 'tool_calls'");
    std::vector<ToolCall> result;
    for (const OrderedJson& call : calls) {
      if (!call.is_object()) refuse("objects in 'tool_calls'");
      const OrderedJson& function = call.contains("function") ? call["function"] : call;
      if (!function.is_object() || !function.contains("name") || !function["name"].is_string()) {
        refuse("a function's name in 'tool_calls'");
      }
      ToolCall made{.id = "", .name = function["name"].get<std::string>(), .arguments = "{}"};
      if (call.contains("id") && call["id"].is_string()) made.id = call["id"].get<std::string>();
      if (function.contains("arguments")) {
        const OrderedJson& arguments = function["arguments"];
        made.arguments =
            arguments.is_string() ? arguments.get<std::string>() : python_json(arguments);
      }
      result.push_back(std::move(made));
    }
    return result;
  }

  const OrderedJson& json_;
  std::string place_;
};

// A tools field is a list, or a text that holds one as JSON.
OrderedJson read_tools(const OrderedJson& tools, const std::string& source) {
  if (tools.is_null() || tools.is_array()) return tools;
  if (tools.is_string() && tools.get_ref<const std::string&>().empty()) return nullptr;
  if (tools.is_string()) {
    if (auto parsed = try_json(tools.get_ref<const std::string&>()); parsed && parsed->is_array())
      return *parsed;
  }
  throw DataError("chat", fmt::format("expected a list of tools at tools of {}", source));
}

void append_json(std::string& out, const OrderedJson& json) {
  if (json.is_string()) {
    out += jinja::quote_json(json.get_ref<const std::string&>(), false);
  } else if (json.is_number_float()) {
    out += jinja::real_text(json.get<double>());
  } else if (json.is_object()) {
    out += '{';
    for (const auto& [key, value] : json.items()) {
      if (out.back() != '{') out += ", ";
      out += jinja::quote_json(key, false) + ": ";
      append_json(out, value);
    }
    out += '}';
  } else if (json.is_array()) {
    out += '[';
    for (size_t i = 0; i < json.size(); ++i) {
      if (i > 0) out += ", ";
      append_json(out, json[i]);
    }
    out += ']';
  } else {
    out += json.dump();
  }
}

}  // namespace

Conversation read_conversation(const OrderedJson& json, const std::string& source) {
  Conversation conversation;
  const bool whole = json.is_object();
  const OrderedJson* messages = whole && json.contains("messages")        ? &json["messages"]
                                : whole && json.contains("conversations") ? &json["conversations"]
                                                                          : &json;
  if (!messages->is_array()) {
    throw DataError("chat", fmt::format("expected a list of messages in {}", source),
                    R"([{"role": "user", "content": "Hello"}])");
  }
  if (whole && json.contains("tools")) conversation.tools = read_tools(json["tools"], source);
  if (whole && json.contains("system") && json["system"].is_string()) {
    conversation.system = json["system"].get<std::string>();
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    conversation.messages.push_back(
        MessageReader((*messages)[i], fmt::format("message {} of {}", i, source)).read());
  }
  return conversation;
}

std::string python_json(const OrderedJson& json) {
  std::string out;
  append_json(out, json);
  return out;
}

std::optional<OrderedJson> try_json(std::string_view text) {
  try {
    return parse_ordered_json(text, "a message", FileRole::kData, {.refuse_duplicate_keys = false});
  } catch (const DataError&) {
    return std::nullopt;
  }
}

}  // namespace qianli::text::chat
