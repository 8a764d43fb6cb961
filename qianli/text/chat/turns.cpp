#include "qianli/text/chat/turns.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/text/chat/deepseek4.h"
#include "qianli/text/chat/thoughts.h"
#include "qianli/text/chat/tool_format.h"

namespace qianli::text::chat {
namespace {

// What the placeholders of a slot stand for.
struct Filling {
  std::string_view content, index, name, arguments;
};

// Each placeholder is filled in once, at the place it has in the slot: a "{{name}}" that a user
// writes stays.
std::string fill(std::string_view text, const Filling& filling) {
  const std::pair<std::string_view, std::string_view> placeholders[] = {
      {"{{content}}", filling.content},
      {"{{idx}}", filling.index},
      {"{{name}}", filling.name},
      {"{{arguments}}", filling.arguments}};
  bool used[4] = {};
  std::string out;
  for (size_t at = 0; at < text.size();) {
    size_t found = 4;
    for (size_t i = 0; i < 4; ++i) {
      const auto& [placeholder, value] = placeholders[i];
      if (!used[i] && value.data() != nullptr && text.substr(at).starts_with(placeholder))
        found = i;
    }
    if (found == 4) {
      out += text[at++];
      continue;
    }
    used[found] = true;
    out += placeholders[found].second;
    at += placeholders[found].first.size();
  }
  return out;
}

void append(Slot& out, const Slot& slot, const Filling& filling) {
  for (const Part& part : slot) {
    if (part.kind != Part::Kind::kText) {
      out.push_back(part);
    } else if (std::string text = fill(part.text, filling); !text.empty()) {
      out.push_back({Part::Kind::kText, std::move(text)});
    }
  }
}

const char* role_name(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kDeveloper:
      return "developer";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      return "assistant";
    case Role::kFunction:
      return "function";
    case Role::kObservation:
      return "observation";
    case Role::kLatestReminder:
      return "latest_reminder";
  }
  return "";
}

class TurnWriter {
 public:
  TurnWriter(const NamedTemplate& named, const Conversation& conversation,
             const TurnOptions& options)
      : named_(named), options_(options), tools_(conversation.tools), system_(conversation.system) {
    take_messages(conversation);
    if (system_.empty()) system_ = options.default_system.value_or(named.default_system);
  }

  Turns write() {
    if (named_.kind == TemplateClass::kReasoning) {
      remove_thoughts(named_, options_.thinking, options_.last_answer_only, messages_);
    }
    for (size_t i = 0; i < messages_.size(); i += 2) {
      const bool answered = i + 1 < messages_.size();
      Slot asked = source(i);
      result_.turns.push_back({std::move(asked), answered ? target(i + 1) : Slot{}, answered});
    }
    if (named_.kind == TemplateClass::kReasoning) {
      mark_absent_thoughts(named_, options_.thinking, options_.last_answer_only, messages_,
                           result_.turns);
    }
    result_.efficient_eos = named_.efficient_eos;
    return std::move(result_);
  }

 private:
  void take_messages(const Conversation& conversation) {
    const auto& messages = conversation.messages;
    size_t first = 0;
    for (; first < messages.size() && messages[first].role == Role::kSystem; ++first) {
      system_ = first == 0 ? messages[first].content : system_ + "\n\n" + messages[first].content;
    }
    for (size_t i = first; i < messages.size(); ++i) {
      const bool asks = (i - first) % 2 == 0;
      messages_.push_back(messages[i]);
      Message& message = messages_.back();
      if (message.role == Role::kAssistant && !message.tool_calls.empty()) as_function(message, i);
      const bool fits = asks ? message.role == Role::kUser || message.role == Role::kObservation
                             : message.role == Role::kAssistant || message.role == Role::kFunction;
      if (!fits) {
        throw DataError("chat",
                        fmt::format("expected {} at message {}, got {}",
                                    asks ? "user or observation" : "assistant or function", i,
                                    role_name(message.role)),
                        "in the template '" + named_.name + "' questions and answers alternate");
      }
      if (message.reasoning && !asks) {
        message.content =
            named_.thought_begin + *message.reasoning + named_.thought_end + message.content;
      }
    }
    if (messages_.empty())
      throw DataError("chat", "expected at least one message besides system messages");
  }

  // OpenAI's tool_calls as the JSON that a function message holds.
  void as_function(Message& message, size_t index) const {
    if (!trim(message.content).empty()) {
      throw DataError(
          "chat",
          fmt::format("the template '{}' has no place for both a text and tool calls at message {}",
                      named_.name, index));
    }
    OrderedJson calls = OrderedJson::array();
    for (const ToolCall& call : message.tool_calls) {
      auto arguments = try_json(call.arguments);
      calls.push_back({{"name", call.name},
                       {"arguments", arguments ? *arguments : OrderedJson(call.arguments)}});
    }
    message.role = Role::kFunction;
    message.content = python_json(calls.size() == 1 ? calls[0] : calls);
  }

  Slot source(size_t i) {
    const Message& message = messages_[i];
    const std::string index = std::to_string(i / 2);
    std::string content = message.content;
    Slot out;
    if (i == 0)
      open(out, content);
    else if (named_.kind != TemplateClass::kLfDefault)
      append(out, named_.separator, {});
    Filling filling{.content = content, .index = index};
    // Its round counter stays as it is written there.
    if (named_.kind == TemplateClass::kLlama2) filling.index = {};
    append(out, message.role == Role::kObservation ? named_.observation : named_.user, filling);
    return out;
  }

  // Prefix and system text; in LLaMA-2's layout that text goes into the first question.
  void open(Slot& out, std::string& content) {
    append(out, named_.prefix, {});
    const std::string system = system_ + tools_text(named_.tools, tools_);
    if (system.empty()) return;
    if (named_.kind != TemplateClass::kLlama2)
      return append(out, named_.system, {.content = system});
    Slot inside;
    append(inside, named_.system, {.content = system});
    content = to_text(inside, "", "") + content;
  }

  Slot target(size_t i) {
    const Message& message = messages_[i];
    Slot out;
    if (message.role == Role::kAssistant) {
      append(out, named_.assistant, {.content = message.content});
    } else if (named_.json_calls) {
      append(out, named_.function, {.content = json_calls(message.content)});
    } else {
      const FunctionText call = name_and_arguments(message.content);
      if (!call.understood) {
        result_.warnings.push_back(
            fmt::format("function message {}: expected JSON with one name and arguments", i));
      }
      append(out, named_.function, {.name = call.name, .arguments = call.arguments});
    }
    return out;
  }

  const NamedTemplate& named_;
  const TurnOptions& options_;
  const OrderedJson& tools_;
  std::string system_;
  std::vector<Message> messages_;
  Turns result_;
};

}  // namespace

Turns render_turns(const NamedTemplate& named, const Conversation& conversation,
                   const TurnOptions& options) {
  if (named.kind == TemplateClass::kDeepSeek4) {
    const auto& messages = conversation.messages;
    const bool has_system =
        !conversation.system.empty() || (!messages.empty() && messages[0].role == Role::kSystem);
    if (has_system || !options.default_system) return render_deepseek4(conversation, options);
    Conversation with_system = conversation;
    with_system.system = *options.default_system;
    return render_deepseek4(with_system, options);
  }
  return TurnWriter(named, conversation, options).write();
}

std::string to_text(std::span<const Part> parts, const std::string& bos, const std::string& eos) {
  std::string text;
  for (const Part& part : parts) {
    text += part.kind == Part::Kind::kBos ? bos : part.kind == Part::Kind::kEos ? eos : part.text;
  }
  return text;
}

}  // namespace qianli::text::chat
