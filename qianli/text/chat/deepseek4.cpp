#include "qianli/text/chat/deepseek4.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/text/chat/deepseek4_messages.h"

namespace qianli::text::chat {
namespace {

constexpr const char* kBegin = "<｜begin▁of▁sentence｜>";
constexpr const char* kEnd = "<｜end▁of▁sentence｜>";
constexpr const char* kUser = "<｜User｜>";
constexpr const char* kAssistant = "<｜Assistant｜>";
constexpr const char* kLatestReminder = "<｜latest_reminder｜>";
constexpr const char* kDsml = "｜DSML｜";

constexpr std::pair<std::string_view, const char*> kTasks[] = {
    {"action", "<｜action｜>"}, {"query", "<｜query｜>"}, {"authority", "<｜authority｜>"},
    {"domain", "<｜domain｜>"}, {"title", "<｜title｜>"}, {"read_url", "<｜read_url｜>"}};

constexpr const char* kToolsText =
    "## Tools\n"
    "\n"
    "You have access to a set of tools to help answer the user's question. You can invoke "
    "tools by writing a \"<{dsml}tool_calls>\" block like the following:\n"
    "\n"
    "<{dsml}tool_calls>\n"
    "<{dsml}invoke name=\"$TOOL_NAME\">\n"
    "<{dsml}parameter name=\"$PARAMETER_NAME\" "
    "string=\"true|false\">$PARAMETER_VALUE</{dsml}parameter>\n"
    "...\n"
    "</{dsml}invoke>\n"
    "<{dsml}invoke name=\"$TOOL_NAME2\">\n"
    "...\n"
    "</{dsml}invoke>\n"
    "</{dsml}tool_calls>\n"
    "\n"
    "String parameters should be specified as is and set `string=\"true\"`. For all other "
    "types (numbers, booleans, arrays, objects), pass the value in JSON format and set "
    "`string=\"false\"`.\n"
    "\n"
    "If thinking_mode is enabled (triggered by {ts}), you MUST output your complete reasoning "
    "inside {ts}...{te} BEFORE any tool calls or final response.\n"
    "\n"
    "Otherwise, output directly after {te} with tool calls or final response.\n"
    "\n"
    "### Available Tool Schemas\n"
    "\n"
    "{tool_schemas}\n"
    "\n"
    "You MUST strictly follow the above defined tool name and parameter schemas to invoke "
    "tool calls.\n";

constexpr const char* kMaxEffort =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem "
    "to resolve the root cause, rigorously stress-testing your logic against all potential "
    "paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate "
    "step, considered alternative, and rejected hypothesis to ensure absolutely no assumption "
    "is left unchecked.\n"
    "\n";

constexpr const char* kResponseFormat =
    "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n";

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

std::string tools_text(const OrderedJson& tools) {
  std::vector<std::string> schemas;
  for (const OrderedJson& tool : tools) schemas.push_back(python_json(tool["function"]));
  std::string text = replaced(kToolsText, "{dsml}", kDsml);
  text = replaced(replaced(std::move(text), "{ts}", kThinkBegin), "{te}", kThinkEnd);
  const size_t at = text.find("{tool_schemas}");
  return text.replace(at, std::string_view("{tool_schemas}").size(), join(schemas, "\n"));
}

std::string parameter(std::string_view name, const OrderedJson& value) {
  const bool text = value.is_string();
  return fmt::format("<{0}parameter name=\"{1}\" string=\"{2}\">{3}</{0}parameter>", kDsml, name,
                     text ? "true" : "false", text ? value.get<std::string>() : python_json(value));
}

std::string calls_text(const std::vector<ToolCall>& calls) {
  if (calls.empty()) return {};
  std::vector<std::string> invokes;
  for (const ToolCall& call : calls) {
    std::vector<std::string> parameters;
    const auto arguments = try_json(call.arguments);
    if (arguments && arguments->is_object()) {
      for (const auto& [name, value] : arguments->items())
        parameters.push_back(parameter(name, value));
    } else {
      parameters.push_back(parameter("arguments", call.arguments));
    }
    invokes.push_back(fmt::format("<{0}invoke name=\"{1}\">\n{2}\n</{0}invoke>", kDsml, call.name,
                                  join(parameters, "\n")));
  }
  return fmt::format("\n\n<{0}tool_calls>\n{1}\n</{0}tool_calls>", kDsml, join(invokes, "\n"));
}

class Writer {
 public:
  Writer(std::vector<Entry> entries, const TurnOptions& options)
      : entries_(std::move(entries)), thinks_(options.thinking == Thinking::kOn) {
    bool has_tools = false;
    for (size_t i = 0; i < entries_.size(); ++i) {
      has_tools |= !entries_[i].message.tools.is_null();
      if (asks(i)) last_question_ = i;
    }
    drops_ = thinks_ && options.drop_thinking && !has_tools;
    opening_ = kBegin;
    if (thinks_ && options.reasoning_effort == "max") opening_ += kMaxEffort;
  }

  Turns write(bool last_answer_only) {
    Turns result;
    std::string source = opening_;
    size_t last_answer = entries_.size();
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (entries_[i].message.role == Role::kAssistant) last_answer = i;
    }
    for (size_t i = 0; i < entries_.size(); ++i) {
      const bool answer = entries_[i].message.role == Role::kAssistant;
      if (answer && (!last_answer_only || i == last_answer)) {
        result.turns.push_back({{{Part::Kind::kText, source}}, {{Part::Kind::kText, text(i)}}});
        source.clear();
      } else {
        source += text(i);
      }
      source += after(i);
    }
    // A question without an answer: nothing to learn, but there to be answered.
    if (!source.empty() && !entries_.empty() && entries_.back().message.role != Role::kAssistant) {
      result.turns.push_back({{{Part::Kind::kText, source}}, {}, false});
    }
    return result;
  }

 private:
  bool asks(size_t i) const {
    const Role role = entries_[i].message.role;
    return role == Role::kUser || role == Role::kDeveloper;
  }
  // Whether reasoning belongs to an answer at place i, or to the question before it.
  bool keeps_reasoning(size_t i) const { return thinks_ && (!drops_ || i >= last_question_); }

  std::string with_extras(const Message& message) const {
    std::string text = message.content;
    if (!message.tools.is_null()) text += "\n\n" + tools_text(message.tools);
    if (!message.response_format.is_null()) {
      text += "\n\n" + std::string(kResponseFormat) + python_json(message.response_format);
    }
    return text;
  }

  std::string text(size_t i) const {
    const auto& [message, blocks] = entries_[i];
    switch (message.role) {
      case Role::kSystem:
        return with_extras(message);
      case Role::kDeveloper:
        if (message.content.empty())
          throw DataError("chat", "expected content in a developer message");
        return kUser + with_extras(message);
      case Role::kLatestReminder:
        return kLatestReminder + message.content;
      case Role::kAssistant:
        break;
      default:
        return kUser + join(blocks, "\n\n");
    }
    const bool after_task = i > 0 && !entries_[i - 1].message.task.empty();
    std::string text;
    if (keeps_reasoning(i) && !after_task) text = message.reasoning.value_or("") + kThinkEnd;
    text += message.content + calls_text(message.tool_calls);
    return message.without_eos ? text : text + kEnd;
  }

  // What asks for an answer.
  std::string after(size_t i) const {
    if (i + 1 < entries_.size()) {
      const Role next = entries_[i + 1].message.role;
      if (next != Role::kAssistant && next != Role::kLatestReminder) return {};
    }
    const std::string opening =
        kAssistant + std::string(keeps_reasoning(i) ? kThinkBegin : kThinkEnd);
    const std::string& task = entries_[i].message.task;
    if (task.empty()) return asks(i) ? opening : std::string();
    const auto* known = std::find_if(std::begin(kTasks), std::end(kTasks),
                                     [&](const auto& entry) { return entry.first == task; });
    if (known == std::end(kTasks)) throw DataError("chat", fmt::format("unknown task '{}'", task));
    return (task == "action" ? opening : std::string()) + known->second;
  }

  std::vector<Entry> entries_;
  bool thinks_, drops_ = false;
  size_t last_question_ = 0;
  std::string opening_;
};

}  // namespace

Turns render_deepseek4(const Conversation& conversation, const TurnOptions& options) {
  if (conversation.messages.empty()) throw DataError("chat", "expected at least one message");
  const auto& effort = options.reasoning_effort;
  if (!effort.empty() && effort != "none" && effort != "high" && effort != "max") {
    throw ConfigError(
        "chat", fmt::format("expected the reasoning effort none, high or max, got '{}'", effort));
  }
  return Writer(deepseek4_entries(conversation), options).write(options.last_answer_only);
}

}  // namespace qianli::text::chat
