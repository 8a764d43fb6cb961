// One row in the form that everything behind works on.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "qianli/data/instruction/row_format.h"
#include "qianli/text/chat/message.h"

namespace qianli::data {

struct Example {
  // The whole conversation, answer included; of preference data what comes before the answers.
  text::chat::Conversation conversation;
  // The messages as they stand in the row, where they are OpenAI's; else null. A model's own
  // template may want fields that a Conversation does not have.
  OrderedJson own_messages;
  std::optional<text::chat::Message> chosen, rejected;
  std::string text;                      // of plain text and of steps
  std::vector<std::string> step_labels;  // of steps
  // Columns kept for reinforcement learning, as asked for.
  std::vector<std::pair<std::string, std::string>> additional;
};

struct ExampleRules {
  RowFormat format = RowFormat::kAlpaca;
  InstructionTask task = InstructionTask::kSft;
  ColumnMap columns;
  Legacy legacy = Legacy::kNone;
  // Kept beside the prompts; "labels" is the answer and no column.
  std::vector<std::string> additional;
};

// DataError that names the column and the message that does not fit; without the row's place.
// Rules of order: behind system messages questions (user, observation) and answers (assistant,
// function call) alternate in ShareGPT's format; OpenAI's begins with system or user, and ends with
// assistant.
Example read_example(const OrderedJson& row, const ExampleRules& rules);
// Of handlers that make several samples of a row; else one.
std::vector<Example> read_examples(const OrderedJson& row, const ExampleRules& rules);

}  // namespace qianli::data
