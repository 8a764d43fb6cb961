#include "qianli/data/instruction/openai_messages.h"

#include "qianli/base/error.h"

namespace qianli::data {
namespace {

using text::chat::Conversation;
using text::chat::Message;
using text::chat::Role;

// A function message of ShareGPT's holds its calls as JSON.
OrderedJson tool_calls(const std::string& content) {
  OrderedJson calls = OrderedJson::array();
  const auto parsed = text::chat::try_json(content);
  if (!parsed) throw DataError("data", "expected JSON in a function call, got a text");
  for (const OrderedJson& call : parsed->is_array() ? *parsed : OrderedJson::array({*parsed})) {
    if (!call.is_object() || !call.contains("name") || !call.contains("arguments"))
      throw DataError("data", "expected name and arguments in a function call");
    calls.push_back({{"type", "function"},
                     {"function", {{"name", call["name"]}, {"arguments", call["arguments"]}}}});
  }
  return calls;
}

}  // namespace

OrderedJson openai_message(const text::chat::Message& one) {
  static const std::pair<Role, const char*> kNames[] = {{Role::kSystem, "system"},
                                                        {Role::kDeveloper, "developer"},
                                                        {Role::kUser, "user"},
                                                        {Role::kAssistant, "assistant"},
                                                        {Role::kFunction, "assistant"},
                                                        {Role::kObservation, "tool"},
                                                        {Role::kLatestReminder, "latest_reminder"}};
  OrderedJson json;
  for (const auto& [role, name] : kNames) {
    if (role == one.role) json["role"] = name;
  }
  json["content"] = one.role == Role::kFunction ? "" : one.content;
  if (one.role == Role::kFunction) json["tool_calls"] = tool_calls(one.content);
  if (one.reasoning) json["reasoning_content"] = *one.reasoning;
  for (const text::chat::ToolCall& call : one.tool_calls) {
    const auto arguments = text::chat::try_json(call.arguments);
    OrderedJson made = {{"type", "function"},
                        {"function",
                         {{"name", call.name},
                          {"arguments", arguments ? *arguments : OrderedJson(call.arguments)}}}};
    if (!call.id.empty()) made["id"] = call.id;
    json["tool_calls"].push_back(std::move(made));
  }
  if (!one.tool_call_id.empty()) json["tool_call_id"] = one.tool_call_id;
  return json;
}

OrderedJson openai_messages(const Conversation& conversation) {
  OrderedJson messages = OrderedJson::array();
  const auto& all = conversation.messages;
  if (!conversation.system.empty() && (all.empty() || all[0].role != Role::kSystem))
    messages.push_back({{"role", "system"}, {"content", conversation.system}});
  for (const Message& one : all) messages.push_back(openai_message(one));
  return messages;
}

OrderedJson other_spelling(OrderedJson messages) {
  for (OrderedJson& message : messages) {
    if (!message.is_object() || !message.contains("tool_calls")) continue;
    OrderedJson& content = message["content"];
    if (content.is_null())
      content = "";
    else if (content.is_string() && content.get_ref<const std::string&>().empty())
      content = nullptr;
    if (!message["tool_calls"].is_array()) continue;
    for (OrderedJson& call : message["tool_calls"]) {
      if (!call.is_object()) continue;
      OrderedJson& function = call.contains("function") ? call["function"] : call;
      if (!function.is_object() || !function.contains("arguments")) continue;
      OrderedJson& arguments = function["arguments"];
      if (!arguments.is_string()) {
        arguments = text::chat::python_json(arguments);
      } else if (auto parsed = text::chat::try_json(arguments.get_ref<const std::string&>())) {
        arguments = std::move(*parsed);
      }
    }
  }
  return messages;
}

}  // namespace qianli::data
