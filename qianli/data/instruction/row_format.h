// What the columns of a row mean: the formats that instruction data come in.
//
//   alpaca      instruction, input, output; perhaps system, history [[question, answer], ...]
//   sharegpt    conversations [{from, value}, ...]; perhaps system, tools
//   openai      messages [{role, content, tool_calls, reasoning_content, ...}]; perhaps tools
//   completion  prompt, completion: texts, or lists of messages
//   text        text
//   steps       input, value: a text with a marker behind each step, and the steps' labels
//
// With chosen and rejected in the place of the answer each but the last two is preference data.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/base/json.h"

namespace qianli::data {

enum class RowFormat { kAlpaca, kSharegpt, kOpenai, kCompletion, kText, kSteps };

// What is made of the rows.
enum class InstructionTask {
  kSft,            // ids and labels of all turns
  kPreference,     // ids and labels of a chosen and of a rejected answer
  kProcessReward,  // ids, labels at the markers
  kPpo,            // ids of the questions
  kPrompts,        // ids of all but the last answer, and additional columns (R1, GRPO)
};

// Handlers of MindSpeed-LLM that go another way than by a named template (legacy.h).
enum class Legacy { kNone, kGeneral, kBelle, kLeetcode, kMoss, kMossMultiTurn, kHunyuan };

const char* name_of(RowFormat format);
const char* name_of(InstructionTask task);
// ConfigError with a suggestion.
RowFormat row_format(std::string_view name);
InstructionTask instruction_task(std::string_view name);
std::vector<std::string> row_format_names();
std::vector<std::string> instruction_task_names();

// Columns by their meaning; "" where there is none.
struct ColumnMap {
  std::string prompt, query, response, history, system, tools, chosen, rejected, messages, value;
  struct Tags {
    std::string role = "from", content = "value", user = "human", assistant = "gpt",
                observation = "observation", function = "function_call", system = "system";
  } tags;
  // Columns that the user named: they must be there.
  std::set<std::string> named;

  OrderedJson to_json() const;
};

// The usual columns of a format, with those of `map_keys` in their place: MindSpeed-LLM's
// --map-keys, a JSON object, or "". An empty string switches a column off. ConfigError naming a key
// that the format does not have.
ColumnMap column_map(RowFormat format, const std::string& map_keys);

struct DetectedFormat {
  RowFormat format;
  InstructionTask task;
  // Columns of other than the usual names, as map_keys; "".
  std::string map_keys;
};
// By the columns of the first rows. DataError where none or several formats fit, with the columns.
DetectedFormat detect_format(const std::vector<OrderedJson>& rows, const std::string& source);

// DataError where a column that the user named is in none of the rows.
void check_columns(const ColumnMap& map, const std::vector<OrderedJson>& rows,
                   const std::string& source);

// MindSpeed-LLM's --handler-name as format and task. ConfigError naming the handlers there are.
struct Handler {
  RowFormat format;
  InstructionTask task;
  Legacy legacy = Legacy::kNone;
};
Handler handler(std::string_view name);
std::vector<std::string> handler_names();

}  // namespace qianli::data
