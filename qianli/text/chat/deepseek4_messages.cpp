#include "qianli/text/chat/deepseek4_messages.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"

namespace qianli::text::chat {
namespace {

void check_tools(const OrderedJson& tools) {
  if (tools.is_null()) return;
  if (!tools.is_array()) throw DataError("chat", "expected a list of tools");
  for (size_t i = 0; i < tools.size(); ++i) {
    const OrderedJson& tool = tools[i];
    const bool fits = tool.is_object() && tool.value("type", OrderedJson()) == "function" &&
                      tool.contains("function") && tool["function"].is_object();
    if (!fits) {
      throw DataError(
          "chat",
          fmt::format("expected {{\"type\": \"function\", \"function\": ...}} at tool {}", i));
    }
  }
}

// "<think>reasoning</think>answer" in one text becomes both.
void split_reasoning(Message& message) {
  if (message.reasoning || !message.content.starts_with(kThinkBegin)) return;
  const size_t begin = std::string_view(kThinkBegin).size();
  const size_t end = message.content.find(kThinkEnd);
  if (end == std::string::npos) return;
  message.reasoning = message.content.substr(begin, end - begin);
  message.content = message.content.substr(end + std::string_view(kThinkEnd).size());
}

// The sample's system text and tools belong to the leading system message, which is made where
// there is none.
std::vector<Message> with_system(const Conversation& conversation) {
  std::vector<Message> messages = conversation.messages;
  if (conversation.system.empty() && conversation.tools.is_null()) return messages;
  if (messages.empty() || messages[0].role != Role::kSystem) {
    messages.insert(messages.begin(), Message{.role = Role::kSystem});
  }
  Message& first = messages[0];
  const bool both = !conversation.system.empty() && !first.content.empty();
  first.content = conversation.system + (both ? "\n\n" : "") + first.content;
  if (!conversation.tools.is_null()) first.tools = conversation.tools;
  return messages;
}

// Makes entries of messages: results of tools become a user message, in the order of the calls.
class Normalizer {
 public:
  std::vector<Entry> run(std::vector<Message> messages) {
    for (Message& message : messages) {
      check_tools(message.tools);
      const bool joins = collects_ && message.role == Role::kUser && message.task.empty();
      if (message.role == Role::kObservation || message.role == Role::kFunction) {
        add_result(message);
      } else if (joins) {
        entries_.back().blocks.push_back(message.content);
        ranks_.push_back(SIZE_MAX);
      } else {
        add_message(std::move(message));
      }
    }
    return std::move(entries_);
  }

 private:
  void add_result(const Message& message) {
    if (!collects_) {
      entries_.push_back({Message{.role = Role::kUser}, {}});
      ranks_.clear();
    }
    collects_ = true;
    const auto call = std::find_if(calls_.begin(), calls_.end(),
                                   [&](const ToolCall& c) { return c.id == message.tool_call_id; });
    const auto rank = static_cast<size_t>(call - calls_.begin());
    const auto place = std::upper_bound(ranks_.begin(), ranks_.end(), rank) - ranks_.begin();
    auto& blocks = entries_.back().blocks;
    blocks.insert(blocks.begin() + place, "<tool_result>" + message.content + "</tool_result>");
    ranks_.insert(ranks_.begin() + place, rank);
  }

  void add_message(Message message) {
    collects_ = false;
    std::vector<std::string> blocks;
    if (message.role == Role::kUser) blocks.push_back(message.content);
    if (message.role == Role::kAssistant) {
      split_reasoning(message);
      calls_ = message.tool_calls;
    }
    entries_.push_back({std::move(message), std::move(blocks)});
  }

  std::vector<Entry> entries_;
  std::vector<ToolCall> calls_;  // of the last answer
  bool collects_ = false;        // the last entry is a user message of results
  std::vector<size_t> ranks_;    // of its blocks, ascending
};

}  // namespace

std::vector<Entry> deepseek4_entries(const Conversation& conversation) {
  return Normalizer().run(with_system(conversation));
}

}  // namespace qianli::text::chat
