#include "qianli/data/instruction/example.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/data/instruction/legacy.h"

namespace qianli::data {
namespace {

using text::chat::Conversation;
using text::chat::Message;
using text::chat::Role;

[[noreturn]] void refuse(const std::string& problem, const std::string& hint = {}) {
  throw DataError("data", problem, hint);
}

Message message(Role role, std::string content) {
  Message made;
  made.role = role;
  made.content = std::move(content);
  return made;
}

class ExampleReader {
 public:
  ExampleReader(const OrderedJson& row, const ExampleRules& rules)
      : row_(row), rules_(rules), columns_(rules.columns) {}

  Example read() {
    const RowFormat format = rules_.format;
    if (format == RowFormat::kAlpaca) read_alpaca();
    if (format == RowFormat::kSharegpt) read_sharegpt();
    if (format == RowFormat::kOpenai) read_openai();
    if (format == RowFormat::kCompletion) read_completion();
    if (format == RowFormat::kText) example_.text = text(columns_.prompt);
    if (format == RowFormat::kSteps) read_steps();
    for (const std::string& column : rules_.additional) {
      if (column != "labels") example_.additional.emplace_back(column, text(column));
    }
    return std::move(example_);
  }

 private:
  bool pairs() const { return rules_.task == InstructionTask::kPreference; }

  // Absent, null and switched off are alike.
  const OrderedJson* find(const std::string& column) const {
    if (column.empty()) return nullptr;
    const auto found = row_.find(column);
    return found == row_.end() || found->is_null() ? nullptr : &*found;
  }

  const OrderedJson& value(const std::string& column) const {
    const OrderedJson* found = find(column);
    if (found) return *found;
    if (row_.contains(column))
      refuse(fmt::format("expected a value in the column '{}', got null", column));
    std::vector<std::string> there;
    for (const auto& [key, value] : row_.items()) there.push_back(key);
    refuse(fmt::format("expected the column '{}', got '{}'{}", column, join(there, "', '"),
                       suggestion(column, there)));
  }

  static std::string string(const OrderedJson& value, const std::string& column) {
    if (value.is_string()) return value.get<std::string>();
    refuse(fmt::format("expected a text in the column '{}', got {}", column, value.type_name()));
  }
  std::string text(const std::string& column) const { return string(value(column), column); }
  std::string text_or_empty(const std::string& column) const {
    const OrderedJson* found = find(column);
    return found ? string(*found, column) : std::string();
  }

  // A .csv can hold lists and objects only as texts.
  static OrderedJson structure(const OrderedJson& value, const std::string& column) {
    if (!value.is_string()) return value;
    if (auto parsed = text::chat::try_json(value.get_ref<const std::string&>())) return *parsed;
    refuse(fmt::format("expected a list or an object in the column '{}', got a text", column));
  }
  OrderedJson list(const std::string& column) const {
    OrderedJson found = structure(value(column), column);
    if (found.is_array()) return found;
    refuse(fmt::format("expected a list in the column '{}', got {}", column, found.type_name()));
  }

  // The one answer of a cell: a text, or a list of which the element `place` counts.
  std::string answer(const std::string& column, size_t place) const {
    const OrderedJson& cell = value(column);
    if (!cell.is_array()) return string(cell, column);
    // Data of old keep both answers of a pair in one list.
    if (cell.size() == 1) place = 0;
    const size_t most = pairs() ? 2 : 1;
    if (cell.empty() || cell.size() > most || place >= cell.size()) {
      refuse(fmt::format("expected one answer in the column '{}', got a list of {}", column,
                         cell.size()),
             pairs() ? "" : "a list of a chosen and a rejected answer is for --task preference");
    }
    return string(cell[place], column);
  }

  void read_alpaca() {
    auto& messages = example_.conversation.messages;
    example_.conversation.system = text_or_empty(columns_.system);
    if (find(columns_.history)) {
      for (const OrderedJson& turn : list(columns_.history)) {
        if (!turn.is_array() || turn.size() != 2 || !turn[0].is_string() || !turn[1].is_string()) {
          refuse(fmt::format("expected pairs of texts in the column '{}', got {}", columns_.history,
                             turn.dump()));
        }
        messages.push_back(message(Role::kUser, turn[0].get<std::string>()));
        messages.push_back(message(Role::kAssistant, turn[1].get<std::string>()));
      }
    }
    std::string question = text_or_empty(columns_.prompt);
    const std::string query = text_or_empty(columns_.query);
    if (!question.empty() && !query.empty()) question += '\n';
    question += query;
    if (question.empty()) {
      value(columns_.prompt);  // perhaps there is no such column
      refuse(fmt::format("expected a question in the column '{}', got none", columns_.prompt));
    }
    messages.push_back(message(Role::kUser, std::move(question)));
    if (!pairs()) {
      messages.push_back(message(Role::kAssistant, answer(columns_.response, 0)));
      return;
    }
    const bool both = !find(columns_.chosen) && find(columns_.response);
    example_.chosen =
        message(Role::kAssistant, answer(both ? columns_.response : columns_.chosen, 0));
    example_.rejected =
        message(Role::kAssistant, answer(both ? columns_.response : columns_.rejected, 1));
  }

  Message tagged(const OrderedJson& json, const std::string& place) const {
    const auto& tags = columns_.tags;
    const auto has = [&](const std::string& key) {
      return json.is_object() && json.contains(key) && json[key].is_string();
    };
    if (!has(tags.role) || !has(tags.content)) {
      refuse(fmt::format("expected texts '{}' and '{}' at {}, got {}", tags.role, tags.content,
                         place, json.dump().substr(0, 80)));
    }
    const std::string& role = json[tags.role].get_ref<const std::string&>();
    const std::pair<const std::string&, Role> roles[] = {{tags.user, Role::kUser},
                                                         {tags.assistant, Role::kAssistant},
                                                         {tags.observation, Role::kObservation},
                                                         {tags.function, Role::kFunction},
                                                         {tags.system, Role::kSystem}};
    std::vector<std::string> known;
    for (const auto& [tag, meaning] : roles) {
      if (tag == role) return message(meaning, json[tags.content].get<std::string>());
      known.push_back(tag);
    }
    refuse(fmt::format("expected '{}' as role at {}, got '{}'", join(known, "', '"), place, role),
           "other names are told with the tags of --map-keys");
  }

  // Answers stand where `asks` is false.
  static void check_side(const Message& message, bool asks, const std::string& place) {
    const bool fits = asks ? message.role == Role::kUser || message.role == Role::kObservation
                           : message.role == Role::kAssistant || message.role == Role::kFunction;
    if (fits) return;
    refuse(fmt::format(
        "expected {} at {}, where questions and answers alternate",
        asks ? "a question (user, observation)" : "an answer (assistant, function call)", place));
  }

  void read_sharegpt() {
    read_system_and_tools();
    auto& messages = example_.conversation.messages;
    const OrderedJson all = list(columns_.messages);
    for (size_t i = 0; i < all.size(); ++i) {
      const std::string place = fmt::format("message {} of '{}'", i + 1, columns_.messages);
      Message one = tagged(all[i], place);
      const size_t systems = messages.empty() || messages[0].role != Role::kSystem ? 0 : 1;
      if (i > 0 || one.role != Role::kSystem) check_side(one, (i - systems) % 2 == 0, place);
      messages.push_back(std::move(one));
    }
    const size_t systems = !messages.empty() && messages[0].role == Role::kSystem ? 1 : 0;
    const size_t count = messages.size() - systems;
    if (count == 0 || count % 2 != (pairs() ? 1 : 0)) {
      refuse(fmt::format("expected {} in '{}', got {} messages",
                         pairs() ? "a question at the end" : "an answer at the end",
                         columns_.messages, count));
    }
    if (!pairs()) return;
    const std::string columns[] = {columns_.chosen, columns_.rejected};
    std::optional<Message>* answers[] = {&example_.chosen, &example_.rejected};
    for (size_t i = 0; i < 2; ++i) {
      const std::string place = fmt::format("the column '{}'", columns[i]);
      *answers[i] = tagged(structure(value(columns[i]), columns[i]), place);
      check_side(**answers[i], false, place);
    }
  }

  void read_system_and_tools() {
    example_.conversation.system = text_or_empty(columns_.system);
    const OrderedJson* tools = find(columns_.tools);
    if (!tools || (tools->is_string() && trim(tools->get_ref<const std::string&>()).empty()))
      return;
    example_.conversation.tools = structure(*tools, columns_.tools);
    if (!example_.conversation.tools.is_array())
      refuse(fmt::format("expected a list of tools in the column '{}'", columns_.tools));
    if (example_.conversation.tools.empty()) example_.conversation.tools = nullptr;
  }

  void take_messages(const OrderedJson& messages, const std::string& column) {
    example_.own_messages = messages;
    example_.conversation.messages =
        text::chat::read_conversation(messages, fmt::format("the column '{}'", column)).messages;
  }

  void check_openai() const {
    const auto& messages = example_.conversation.messages;
    const auto first = messages.empty() ? Role::kAssistant : messages.front().role;
    const bool begins = first == Role::kSystem || first == Role::kUser || first == Role::kDeveloper;
    if (!begins) refuse("expected system or user as the first message");
    const bool answered =
        messages.back().role == Role::kAssistant || messages.back().role == Role::kFunction;
    if (answered == pairs()) {
      refuse(pairs() ? "expected a question as the last message"
                     : "expected assistant as the last message");
    }
  }

  void read_openai() {
    read_system_and_tools();
    take_messages(list(columns_.messages), columns_.messages);
    if (pairs()) {
      example_.chosen = last_answer(columns_.chosen);
      example_.rejected = last_answer(columns_.rejected);
    }
    check_openai();
  }

  // Of a text, a message, or a list of messages.
  Message last_answer(const std::string& column) const {
    const OrderedJson& cell = value(column);
    if (cell.is_string()) return message(Role::kAssistant, cell.get<std::string>());
    OrderedJson messages = cell.is_array() ? cell : OrderedJson::array({cell});
    const auto read =
        text::chat::read_conversation(messages, fmt::format("the column '{}'", column)).messages;
    if (read.empty() || read.back().role != Role::kAssistant)
      refuse(fmt::format("expected an assistant's message at the end of the column '{}'", column));
    return read.back();
  }

  // The question: a text, or messages; where there is none, what chosen has before its answer.
  void read_prompt() {
    const OrderedJson* prompt = find(columns_.prompt);
    if (prompt && prompt->is_array()) return take_messages(*prompt, columns_.prompt);
    if (prompt || !pairs())
      return example_.conversation.messages.push_back(message(Role::kUser, text(columns_.prompt)));
    OrderedJson messages = list(columns_.chosen);
    if (!messages.empty()) messages.erase(messages.size() - 1);
    take_messages(messages, columns_.chosen);
  }

  void read_completion() {
    read_system_and_tools();
    read_prompt();
    if (pairs()) {
      example_.chosen = last_answer(columns_.chosen);
      example_.rejected = last_answer(columns_.rejected);
    } else {
      const OrderedJson& response = value(columns_.response);
      if (response.is_array() && example_.own_messages.is_array()) {
        OrderedJson all = example_.own_messages;
        all.insert(all.end(), response.begin(), response.end());
        take_messages(all, columns_.response);
      } else {
        example_.own_messages = nullptr;
        example_.conversation.messages.push_back(last_answer(columns_.response));
      }
    }
    check_openai();
  }

  void read_steps() {
    example_.text = text(columns_.prompt);
    for (const OrderedJson& label : list(columns_.value))
      example_.step_labels.push_back(string(label, columns_.value));
  }

  const OrderedJson& row_;
  const ExampleRules& rules_;
  const ColumnMap& columns_;
  Example example_;
};

}  // namespace

Example read_example(const OrderedJson& row, const ExampleRules& rules) {
  return ExampleReader(row, rules).read();
}

std::vector<Example> read_examples(const OrderedJson& row, const ExampleRules& rules) {
  if (rules.legacy != Legacy::kNone) return read_legacy(row, rules);
  std::vector<Example> one;
  one.push_back(read_example(row, rules));
  return one;
}

}  // namespace qianli::data
