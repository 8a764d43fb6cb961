#include "qianli/data/instruction/row_format.h"

#include <fmt/core.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::data {
namespace {

constexpr std::pair<RowFormat, const char*> kFormats[] = {
    {RowFormat::kAlpaca, "alpaca"}, {RowFormat::kSharegpt, "sharegpt"},
    {RowFormat::kOpenai, "openai"}, {RowFormat::kCompletion, "completion"},
    {RowFormat::kText, "text"},     {RowFormat::kSteps, "steps"}};

constexpr std::pair<InstructionTask, const char*> kTasks[] = {
    {InstructionTask::kSft, "sft"},
    {InstructionTask::kPreference, "preference"},
    {InstructionTask::kProcessReward, "process-reward"},
    {InstructionTask::kPpo, "ppo"},
    {InstructionTask::kPrompts, "prompts"}};

constexpr std::pair<Handler, const char*> kHandlers[] = {
    {{RowFormat::kAlpaca, InstructionTask::kSft}, "AlpacaStyleInstructionHandler"},
    {{RowFormat::kSharegpt, InstructionTask::kSft}, "SharegptStyleInstructionHandler"},
    {{RowFormat::kOpenai, InstructionTask::kSft}, "OpenAIInstructionHandler"},
    {{RowFormat::kAlpaca, InstructionTask::kPreference}, "AlpacaStylePairwiseHandler"},
    {{RowFormat::kSharegpt, InstructionTask::kPreference}, "SharegptStylePairwiseHandler"},
    {{RowFormat::kSteps, InstructionTask::kProcessReward}, "AlpacaStyleProcessRewardHandler"},
    {{RowFormat::kAlpaca, InstructionTask::kPpo}, "PPOAlpacaStyleInstructionHandler"},
    {{RowFormat::kAlpaca, InstructionTask::kPrompts}, "R1AlpacaStyleInstructionHandler"},
    {{RowFormat::kSharegpt, InstructionTask::kPrompts}, "R1SharegptStyleInstructionHandler"},
    {{RowFormat::kSharegpt, InstructionTask::kSft, Legacy::kHunyuan}, "HunyuanInstructionHandler"},
    {{RowFormat::kAlpaca, InstructionTask::kSft, Legacy::kGeneral}, "GeneralInstructionHandler"},
    {{RowFormat::kAlpaca, InstructionTask::kSft, Legacy::kBelle},
     "BelleMultiTurnInstructionHandler"},
    {{RowFormat::kAlpaca, InstructionTask::kSft, Legacy::kLeetcode},
     "LeetcodePythonInstructionHandler"},
    {{RowFormat::kAlpaca, InstructionTask::kSft, Legacy::kMoss}, "MOSSInstructionHandler"},
    {{RowFormat::kAlpaca, InstructionTask::kSft, Legacy::kMossMultiTurn}, "MOSSMultiTurnHandler"}};

// Of `data prepare`, where they make corpora of text or take several data sets.
constexpr const char* kOtherHandlers[] = {
    "GeneralPretrainHandler", "AlpacaPretrainHandler", "SharegptPretrainHandler",
    "StackOverflowPythonPretrainHandler", "LlamaFactoryInstructionHandler"};

template <class Table>
std::vector<std::string> names(const Table& table) {
  std::vector<std::string> all;
  for (const auto& [value, name] : table) all.emplace_back(name);
  return all;
}

[[noreturn]] void refuse_name(const char* what, std::string_view name,
                              const std::vector<std::string>& known) {
  throw ConfigError("data",
                    fmt::format("expected {}, got '{}'{}", what, name, suggestion(name, known)),
                    "known are " + join(known, ", "));
}

// The keys of --map-keys that a format has, with their places in the map.
std::vector<std::pair<const char*, std::string ColumnMap::*>> keys_of(RowFormat format) {
  using M = ColumnMap;
  switch (format) {
    case RowFormat::kAlpaca:
      return {{"prompt", &M::prompt},    {"query", &M::query},   {"response", &M::response},
              {"history", &M::history},  {"system", &M::system}, {"chosen", &M::chosen},
              {"rejected", &M::rejected}};
    case RowFormat::kSharegpt:
    case RowFormat::kOpenai:
      return {{"messages", &M::messages},
              {"system", &M::system},
              {"tools", &M::tools},
              {"chosen", &M::chosen},
              {"rejected", &M::rejected}};
    case RowFormat::kCompletion:
      return {{"prompt", &M::prompt}, {"response", &M::response}, {"system", &M::system},
              {"tools", &M::tools},   {"chosen", &M::chosen},     {"rejected", &M::rejected}};
    case RowFormat::kText:
      return {{"prompt", &M::prompt}};
    case RowFormat::kSteps:
      return {{"prompt", &M::prompt}, {"value", &M::value}};
  }
  return {};
}

ColumnMap usual_columns(RowFormat format) {
  ColumnMap map;
  for (const auto& [key, member] : keys_of(format)) map.*member = key;
  if (format == RowFormat::kAlpaca) {
    map.prompt = "instruction";
    map.query = "input";
    map.response = "output";
  }
  if (format == RowFormat::kSharegpt) map.messages = "conversations";
  if (format == RowFormat::kCompletion) map.response = "completion";
  if (format == RowFormat::kText) map.prompt = "text";
  if (format == RowFormat::kSteps) map.prompt = "input";
  return map;
}

std::string text_value(const OrderedJson& value, const std::string& key) {
  if (value.is_string()) return value.get<std::string>();
  throw ConfigError("data", fmt::format("expected a column's name under '{}' of the map of keys, "
                                        "got {}",
                                        key, value.dump()));
}

void read_tags(const OrderedJson& json, ColumnMap::Tags& tags) {
  const std::map<std::string, std::string*> known = {{"role_tag", &tags.role},
                                                     {"content_tag", &tags.content},
                                                     {"user_tag", &tags.user},
                                                     {"assistant_tag", &tags.assistant},
                                                     {"observation_tag", &tags.observation},
                                                     {"function_tag", &tags.function},
                                                     {"system_tag", &tags.system}};
  std::vector<std::string> all;
  for (const auto& [name, tag] : known) all.push_back(name);
  if (!json.is_object())
    throw ConfigError("data", "expected an object under 'tags' of the map of keys");
  for (const auto& [key, value] : json.items()) {
    const auto found = known.find(key);
    if (found == known.end()) refuse_name("a tag of the map of keys", key, all);
    *found->second = text_value(value, key);
  }
}

bool is_list_of_objects_with(const OrderedJson& row, const std::string& column,
                             const std::string& key) {
  const auto found = row.find(column);
  return found != row.end() && found->is_array() && !found->empty() && (*found)[0].is_object() &&
         (*found)[0].contains(key);
}

// What one row looks like; several where that is not clear.
std::vector<DetectedFormat> formats_of(const OrderedJson& row) {
  std::vector<DetectedFormat> found;
  const auto has = [&](const char* column) { return row.contains(column); };
  const auto pairs = has("chosen") && has("rejected");
  const auto task = pairs ? InstructionTask::kPreference : InstructionTask::kSft;
  if (is_list_of_objects_with(row, "conversations", "from"))
    found.push_back({RowFormat::kSharegpt, task, ""});
  if (is_list_of_objects_with(row, "conversations", "role"))
    found.push_back({RowFormat::kOpenai, task, R"({"messages": "conversations"})"});
  if (is_list_of_objects_with(row, "messages", "role"))
    found.push_back({RowFormat::kOpenai, task, ""});
  if (has("instruction") && (pairs || has("output")))
    found.push_back({RowFormat::kAlpaca, task, ""});
  if (has("prompt") && (pairs || has("completion")))
    found.push_back({RowFormat::kCompletion, task, ""});
  if (found.empty() && pairs && is_list_of_objects_with(row, "chosen", "role"))
    found.push_back({RowFormat::kCompletion, task, ""});
  if (has("input") && has("value") && row["value"].is_array())
    found.push_back({RowFormat::kSteps, InstructionTask::kProcessReward, ""});
  if (has("text") && found.empty()) found.push_back({RowFormat::kText, task, ""});
  return found;
}

}  // namespace

const char* name_of(RowFormat format) {
  return std::find_if(std::begin(kFormats), std::end(kFormats),
                      [&](const auto& entry) { return entry.first == format; })
      ->second;
}

const char* name_of(InstructionTask task) {
  return std::find_if(std::begin(kTasks), std::end(kTasks),
                      [&](const auto& entry) { return entry.first == task; })
      ->second;
}

std::vector<std::string> row_format_names() { return names(kFormats); }
std::vector<std::string> instruction_task_names() { return names(kTasks); }
std::vector<std::string> handler_names() { return names(kHandlers); }

RowFormat row_format(std::string_view name) {
  for (const auto& [format, known] : kFormats) {
    if (known == name) return format;
  }
  refuse_name("a format of rows", name, row_format_names());
}

InstructionTask instruction_task(std::string_view name) {
  for (const auto& [task, known] : kTasks) {
    if (known == name) return task;
  }
  refuse_name("a task", name, instruction_task_names());
}

Handler handler(std::string_view name) {
  for (const auto& [entry, known] : kHandlers) {
    if (known == name) return entry;
  }
  if (std::find(std::begin(kOtherHandlers), std::end(kOtherHandlers), name) !=
      std::end(kOtherHandlers)) {
    throw ConfigError("data",
                      fmt::format("expected a handler of rows for instruction data, got {}", name),
                      "prepare its data first, with `qianli data prepare --handler-name`");
  }
  refuse_name("a handler of instruction data", name, handler_names());
}

OrderedJson ColumnMap::to_json() const {
  return {{"prompt", prompt},
          {"query", query},
          {"response", response},
          {"history", history},
          {"system", system},
          {"tools", tools},
          {"chosen", chosen},
          {"rejected", rejected},
          {"messages", messages},
          {"value", value},
          {"tags", OrderedJson::array({tags.role, tags.content, tags.user, tags.assistant,
                                       tags.observation, tags.function, tags.system})}};
}

ColumnMap column_map(RowFormat format, const std::string& map_keys) {
  ColumnMap map = usual_columns(format);
  if (map_keys.empty()) return map;
  OrderedJson json;
  try {
    json = parse_ordered_json(map_keys, "the map of keys", FileRole::kConfig);
  } catch (const Error& error) {
    throw ConfigError("data", fmt::format("expected JSON as map of keys, got '{}'", map_keys),
                      R"(for example --map-keys '{"prompt": "question", "response": "answer"}')");
  }
  if (!json.is_object()) throw ConfigError("data", "expected an object as map of keys");
  const auto keys = keys_of(format);
  std::vector<std::string> known = {"tags", "kto_tag"};
  for (const auto& [key, member] : keys) known.emplace_back(key);
  if (format != RowFormat::kSharegpt) known.erase(known.begin(), known.begin() + 2);
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      refuse_name(fmt::format("a key of the format {} in the map of keys", name_of(format)).c_str(),
                  key, known);
    }
    if (key == "tags") {
      read_tags(value, map.tags);
      continue;
    }
    const std::string column = text_value(value, key);
    for (const auto& [name, member] : keys) {
      if (key == name) map.*member = column;
    }
    if (!column.empty()) map.named.insert(column);
  }
  return map;
}

DetectedFormat detect_format(const std::vector<OrderedJson>& rows, const std::string& source) {
  std::map<std::string, DetectedFormat> found;
  std::set<std::string> columns;
  for (const OrderedJson& row : rows) {
    for (const auto& [column, value] : row.items()) columns.insert(column);
    for (const DetectedFormat& one : formats_of(row))
      found.emplace(fmt::format("{} ({})", name_of(one.format), name_of(one.task)), one);
  }
  if (found.size() == 1) return found.begin()->second;
  std::vector<std::string> fitting;
  for (const auto& [name, one] : found) fitting.push_back(name);
  const std::string list = join(std::vector<std::string>(columns.begin(), columns.end()), "', '");
  throw DataError("data",
                  found.empty() ? fmt::format("{}: no known format fits rows with the columns '{}'",
                                              source, list)
                                : fmt::format("{}: rows with the columns '{}' could be {}", source,
                                              list, join(fitting, " or ")),
                  "say which with --format and --task, and which column is what with --map-keys");
}

void check_columns(const ColumnMap& map, const std::vector<OrderedJson>& rows,
                   const std::string& source) {
  std::set<std::string> columns;
  for (const OrderedJson& row : rows) {
    for (const auto& [column, value] : row.items()) columns.insert(column);
  }
  const std::vector<std::string> there(columns.begin(), columns.end());
  for (const std::string& column : map.named) {
    if (columns.count(column)) continue;
    throw DataError(
        "data", fmt::format("{}: expected the column '{}' of the map of keys, got '{}'{}", source,
                            column, join(there, "', '"), suggestion(column, there)));
  }
}

}  // namespace qianli::data
