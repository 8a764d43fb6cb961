#include "qianli/data/instruction/legacy.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/data/instruction/openai_messages.h"
#include "qianli/text/chat/encode_turns.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::data {
namespace {

using text::chat::kIgnored;
using text::chat::Message;
using text::chat::Role;

// A wire format: models were trained on these characters.
constexpr std::string_view kTask =
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request. Please note that you need "
    "to think through your response logically and step by step.";
constexpr std::string_view kInstruction = "### Instruction:", kResponse = "### Response:";
constexpr std::string_view kHuman = "Human:", kAssistant = "Assistant:";
// Baichuan's ids for the sides of a conversation.
constexpr int32_t kUserMarker = 195, kAssistantMarker = 196;
constexpr const char *kHunyuanBegin = "<|extra_0|>", *kHunyuanEnd = "<|eos|>";

[[noreturn]] void refuse(const std::string& problem) { throw DataError("data", problem); }

std::string stripped(std::string_view text) {
  return std::string(text::jinja::strip(text, text::jinja::Side::kBoth));
}

std::string text_of(const OrderedJson& row, const std::string& column) {
  const auto found = row.find(column);
  if (found == row.end()) {
    std::vector<std::string> there;
    for (const auto& [key, value] : row.items()) there.push_back(key);
    refuse(fmt::format("expected the column '{}', got '{}'{}", column, join(there, "', '"),
                       suggestion(column, there)));
  }
  if (!found->is_string())
    refuse(fmt::format("expected a text in the column '{}', got {}", column, found->type_name()));
  return found->get<std::string>();
}

Message message(Role role, std::string content) {
  Message made;
  made.role = role;
  made.content = std::move(content);
  return made;
}

Example one_turn(std::string question, std::string answer) {
  Example example;
  example.conversation.messages = {message(Role::kUser, std::move(question)),
                                   message(Role::kAssistant, std::move(answer))};
  return example;
}

std::vector<std::string_view> pieces(std::string_view text, std::string_view separator) {
  return text::jinja::split_text(text, separator, -1);
}

// "Human: ... Assistant: ... Human: ... Assistant:", whose last answer is a column of its own.
Example belle(const OrderedJson& row, const ColumnMap& columns) {
  Example example;
  auto& messages = example.conversation.messages;
  const std::string conversation = text_of(row, columns.prompt);
  for (const std::string_view piece : pieces(conversation, kHuman)) {
    if (piece.empty()) continue;
    const auto sides = pieces(piece, kAssistant);
    if (sides.size() > 2) {
      refuse(fmt::format("expected '{}' once behind each '{}' in the column '{}'", kAssistant,
                         kHuman, columns.prompt));
    }
    if (sides.size() == 2) messages.push_back(message(Role::kUser, stripped(sides[0])));
    messages.push_back(message(Role::kAssistant, stripped(sides.back())));
  }
  const bool asks = messages.size() > 1 && messages[messages.size() - 2].role == Role::kUser;
  if (!asks || !messages.back().content.empty()) {
    refuse(fmt::format("expected '{} ... {}' at the end of the column '{}'", kHuman, kAssistant,
                       columns.prompt));
  }
  messages.back().content = stripped(text_of(row, columns.response));
  return example;
}

Example leetcode(const OrderedJson& row) {
  const std::string problem = text_of(row, "code_with_problem");
  return one_turn(stripped(problem.substr(0, problem.find("```"))),
                  text_of(row, "code_only") + "\n" + text_of(row, "explanation_only"));
}

std::string without(std::string text, std::initializer_list<std::string_view> marks) {
  for (const std::string_view mark : marks) text = text::jinja::replace_text(text, mark, "", -1);
  return stripped(text);
}

// {"chat": {"turn_1": {"Human": ..., "MOSS": ...}, ...}}
Example moss(const OrderedJson& row) {
  const auto found = row.find("chat");
  if (found == row.end() || !found->is_object()) refuse("expected an object in the column 'chat'");
  Example example;
  for (const auto& [name, turn] : found->items()) {
    if (turn.is_null() || turn.empty()) continue;
    if (!turn.is_object()) refuse(fmt::format("expected an object as '{}' of 'chat'", name));
    example.conversation.messages.push_back(
        message(Role::kUser, without(text_of(turn, "Human"), {"<eoh>", "<|Human|>: "})));
    example.conversation.messages.push_back(
        message(Role::kAssistant, without(text_of(turn, "MOSS"), {"<|MOSS|>:", "<eom>"})));
  }
  if (example.conversation.messages.empty())
    refuse("expected turns in the column 'chat', got none");
  return example;
}

// What comes before each answer, with it.
std::vector<Example> prefixes(const Example& whole) {
  std::vector<Example> all;
  const auto& messages = whole.conversation.messages;
  for (size_t count = 2; count <= messages.size(); count += 2) {
    all.emplace_back().conversation.messages.assign(
        messages.begin(), messages.begin() + static_cast<ptrdiff_t>(count));
  }
  return all;
}

// System, user, assistant, and again.
Example hunyuan(const OrderedJson& row, const ColumnMap& columns) {
  const auto& tags = columns.tags;
  const auto found = row.find(columns.messages);
  if (found == row.end() || !found->is_array())
    refuse(fmt::format("expected a list in the column '{}'", columns.messages));
  Example example;
  const std::pair<std::string, Role> order[] = {
      {tags.system, Role::kSystem}, {tags.user, Role::kUser}, {tags.assistant, Role::kAssistant}};
  for (const OrderedJson& one : *found) {
    const auto& [tag, role] = order[example.conversation.messages.size() % 3];
    const std::string place = fmt::format(
        "message {} of '{}'", example.conversation.messages.size() + 1, columns.messages);
    if (!one.is_object()) refuse("expected an object as " + place);
    if (text_of(one, tags.role) != tag)
      refuse(fmt::format("expected '{}' as role at {}, got '{}'", tag, place,
                         text_of(one, tags.role)));
    example.conversation.messages.push_back(message(role, text_of(one, tags.content)));
  }
  const size_t count = example.conversation.messages.size();
  if (count == 0 || count % 3 != 0) {
    refuse(fmt::format("expected groups of system, user and assistant in '{}', got {} messages",
                       columns.messages, count));
  }
  return example;
}

void append(std::vector<int32_t>& to, const std::vector<int32_t>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

// The text as one; what comes before the last answer, tokenized by itself, says how many of its
// tokens are not learnt.
Sample encode_framed(const Example& example, const text::Tokenizer& tokenizer) {
  const std::string text = framed_text(example.conversation);
  const std::string before = text.substr(0, text.rfind(kResponse) + kResponse.size()) + "\n";
  Sample sample;
  auto ids = tokenizer.encode(text, true), labels = ids;
  const size_t ignored = std::min(tokenizer.encode(before, true).size(), ids.size());
  std::fill_n(labels.begin(), ignored, kIgnored);
  sample.fields = {std::move(ids), std::move(labels)};
  return sample;
}

Sample encode_marked(const Example& example, const text::Tokenizer& tokenizer) {
  const auto eos = tokenizer.eos_id();
  if (!eos) refuse("expected a tokenizer with an end of text, got one without");
  Sample sample;
  sample.fields.resize(2);
  auto &ids = sample.fields[0], &labels = sample.fields[1];
  for (const Message& message : example.conversation.messages) {
    const bool asks = message.role == Role::kUser;
    const auto words = tokenizer.encode(message.content, true);
    ids.push_back(asks ? kUserMarker : kAssistantMarker);
    labels.push_back(asks ? *eos : kIgnored);
    append(ids, words);
    append(labels, asks ? std::vector<int32_t>(words.size(), kIgnored) : words);
  }
  ids.push_back(*eos);
  labels.push_back(*eos);
  return sample;
}

int32_t needed(const text::Tokenizer& tokenizer, const char* token) {
  const auto id = tokenizer.id_of(token);
  if (!id) refuse(fmt::format("expected a tokenizer with the token '{}', got one without", token));
  return *id;
}

Sample encode_hunyuan(const Example& example, const text::Tokenizer& tokenizer,
                      const OwnTemplate& own) {
  const int32_t begin = needed(tokenizer, kHunyuanBegin), end = needed(tokenizer, kHunyuanEnd);
  auto ids = own.whole(openai_messages(example.conversation), example.conversation.tools);
  std::vector<int32_t> labels(ids.size(), kIgnored);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] != begin) continue;
    const auto close = std::find(ids.begin() + static_cast<ptrdiff_t>(i), ids.end(), end);
    if (close == ids.end())
      refuse(fmt::format("expected '{}' behind each '{}' of the template", kHunyuanEnd,
                         kHunyuanBegin));
    for (; ids[i] != end; ++i) labels[i] = ids[i];
    labels[i] = end;
  }
  Sample sample;
  sample.fields = {std::move(ids), std::move(labels)};
  return sample;
}

}  // namespace

std::vector<Example> read_legacy(const OrderedJson& row, const ExampleRules& rules) {
  const ColumnMap& columns = rules.columns;
  switch (rules.legacy) {
    case Legacy::kGeneral:
      return {one_turn(text_of(row, columns.prompt) + "\n" + text_of(row, columns.query),
                       text_of(row, columns.response))};
    case Legacy::kBelle:
      return {belle(row, columns)};
    case Legacy::kLeetcode:
      return {leetcode(row)};
    case Legacy::kMoss:
      return prefixes(moss(row));
    case Legacy::kMossMultiTurn:
      return {moss(row)};
    case Legacy::kHunyuan:
      return {hunyuan(row, columns)};
    case Legacy::kNone:
      break;
  }
  throw std::logic_error("no handler of old");
}

std::string framed_text(const text::chat::Conversation& conversation) {
  std::string text = fmt::format("\n{}\n", kTask);
  for (const Message& message : conversation.messages) {
    text += fmt::format("{}\n{}\n", message.role == Role::kUser ? kInstruction : kResponse,
                        message.content);
  }
  return text;
}

Sample encode_legacy(Legacy legacy, const Example& example, const text::Tokenizer& tokenizer,
                     const OwnTemplate* own) {
  if (legacy == Legacy::kHunyuan) return encode_hunyuan(example, tokenizer, *own);
  if (legacy == Legacy::kMossMultiTurn) return encode_marked(example, tokenizer);
  return encode_framed(example, tokenizer);
}

}  // namespace qianli::data
