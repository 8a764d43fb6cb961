#include "qianli/data/documents.h"

#include <fmt/core.h>
#include <simdjson.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/data/unpacked.h"

namespace qianli::data {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kBlanks = " \t\r\n";

// Where a record stands, found only when it is needed: counting lines takes time.
std::string place_of(std::string_view content, uint64_t offset, const std::string& source) {
  const auto end = content.begin() + static_cast<std::ptrdiff_t>(offset);
  return fmt::format("{}:{}", source, std::count(content.begin(), end, '\n') + 1);
}

[[noreturn]] void refuse(const std::string& place, const std::string& expected,
                         const std::string& got, const std::string& hint = {}) {
  throw DataError("data", fmt::format("{}: expected {}, got {}", place, expected, got), hint);
}

using Place = std::function<std::string()>;

simdjson::dom::object object_of(const simdjson::dom::element& record, const Place& place) {
  simdjson::dom::object object;
  if (record.get(object) != simdjson::SUCCESS) refuse(place(), "a JSON object", "another value");
  return object;
}

// Of a key that stands twice the last one counts, as in Python.
std::string_view value_of(const simdjson::dom::object& object, const std::string& key,
                          const Place& place) {
  std::optional<simdjson::dom::element> found;
  for (const auto field : object) {
    if (field.key == key) found = field.value;
  }
  if (!found) {
    std::vector<std::string> keys;
    for (const auto field : object) keys.emplace_back(field.key);
    refuse(place(), fmt::format("the key '{}'", key),
           keys.empty() ? "an empty object" : fmt::format("'{}'", join(keys, "', '")),
           "name the key that holds the text: data.text_key, or --key of data prepare");
  }
  std::string_view text;
  if (found->get(text) != simdjson::SUCCESS) {
    refuse(place(), fmt::format("a string under '{}'", key), "another value");
  }
  return text;
}

// A frame of words as MindSpeed-LLM writes it; where there is no input, nothing stands for it.
std::string alpaca_text(const simdjson::dom::object& row, const Place& place) {
  std::string_view input;
  for (const auto field : row) {
    if (field.key == "input" && field.value.get(input) != simdjson::SUCCESS) input = {};
  }
  return fmt::format(
      "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
      "helpful, detailed, and polite answers to the user's questions.USER: Below is an instruction "
      "that describes a task. Write a response that appropriately completes the request.\n\n"
      "### Instruction:\n{}\n\n{}### Response: ASSISTANT: {}",
      value_of(row, "instruction", place),
      input.empty() ? "" : fmt::format("### Input:\n{}\n\n", input),
      value_of(row, "output", place));
}

std::string sharegpt_text(const simdjson::dom::object& row, const Place& place) {
  std::string text;
  for (const auto field : row) {
    if (field.key != "conversations" && field.key != "messages") continue;
    simdjson::dom::array messages;
    if (field.value.get(messages) != simdjson::SUCCESS)
      refuse(place(), fmt::format("a list of messages under '{}'", field.key), "another value");
    for (const simdjson::dom::element message : messages) {
      std::string_view words;
      if (message["value"].get(words) != simdjson::SUCCESS &&
          message["content"].get(words) != simdjson::SUCCESS)
        refuse(place(), "'value' or 'content' in every message", "a message without");
      text += words;
    }
  }
  if (text.empty()) refuse(place(), "messages under 'conversations' or 'messages'", "none");
  return text;
}

std::string stack_overflow_text(const simdjson::dom::object& row, const Place& place) {
  return fmt::format("In python, {}\n### Question:\n{}\n### Response:\n{}\n",
                     value_of(row, "title", place), value_of(row, "question_body", place),
                     value_of(row, "answer_body", place));
}

void visit_record(const simdjson::dom::element& record, const DocumentRules& rules,
                  const Place& place, const std::function<void(std::string_view)>& visit) {
  const simdjson::dom::object object = object_of(record, place);
  switch (rules.text) {
    case DocumentText::kKey:
      return visit(value_of(object, rules.text_key, place));
    case DocumentText::kAlpaca:
      return visit(alpaca_text(object, place));
    case DocumentText::kSharegpt:
      return visit(sharegpt_text(object, place));
    case DocumentText::kStackOverflow:
      return visit(stack_overflow_text(object, place));
  }
}

void visit_lines(std::string_view content, ByteRange range, const DocumentRules& rules,
                 const std::string& source, const std::function<void(std::string_view)>& visit) {
  simdjson::dom::parser parser;
  uint64_t begin = range.begin;
  if (begin == 0 && content.starts_with(kByteOrderMark)) begin = kByteOrderMark.size();
  while (begin < range.end) {
    const uint64_t end = std::min<uint64_t>(content.find('\n', begin), range.end);
    const std::string_view line = content.substr(begin, end - begin);
    const auto place = [&] { return place_of(content, begin, source); };
    if (line.find_first_not_of(kBlanks) != std::string_view::npos) {
      simdjson::dom::element record;
      if (const auto error = parser.parse(line.data(), line.size(), true).get(record)) {
        refuse(place(), "a JSON object",
               fmt::format("invalid JSON ({})", simdjson::error_message(error)));
      }
      visit_record(record, rules, place, visit);
    }
    begin = end + 1;
  }
}

void visit_array(std::string_view content, const DocumentRules& rules, const std::string& source,
                 const std::function<void(std::string_view)>& visit) {
  if (content.starts_with(kByteOrderMark)) content.remove_prefix(kByteOrderMark.size());
  simdjson::dom::parser parser;
  simdjson::dom::array records;
  if (const auto error = parser.parse(content.data(), content.size(), true).get(records)) {
    refuse(source, "an array of JSON objects",
           fmt::format("invalid JSON ({})", simdjson::error_message(error)));
  }
  size_t number = 0;
  for (const simdjson::dom::element record : records) {
    ++number;
    visit_record(
        record, rules, [&] { return fmt::format("{}: record {}", source, number); }, visit);
  }
}

}  // namespace

DocumentKind kind_of(const fs::path& name, std::string_view content) {
  const std::string extension = unpacked_name(name).extension().string();
  if (extension == ".jsonl" || extension == ".ndjson") return DocumentKind::kJsonLines;
  if (extension != ".json") return DocumentKind::kPlainText;
  if (content.starts_with(kByteOrderMark)) content.remove_prefix(kByteOrderMark.size());
  const size_t first = content.find_first_not_of(kBlanks);
  const bool array = first != std::string_view::npos && content[first] == '[';
  return array ? DocumentKind::kJsonArray : DocumentKind::kJsonLines;
}

std::vector<ByteRange> cut_ranges(std::string_view content, DocumentKind kind,
                                  const DocumentRules& rules, uint64_t target_bytes) {
  std::string_view mark = "\n";
  if (kind == DocumentKind::kPlainText)
    mark = rules.separator ? *rules.separator : std::string_view();
  if (kind == DocumentKind::kJsonArray) mark = {};
  std::vector<ByteRange> ranges;
  uint64_t begin = 0;
  if (!mark.empty()) {
    // Marks are looked for from the beginning of the file: "\n\n" may overlap itself.
    for (size_t at = content.find(mark); at != std::string_view::npos;
         at = content.find(mark, at)) {
      at += mark.size();
      if (at - begin < target_bytes) continue;
      ranges.push_back({begin, at});
      begin = at;
    }
  }
  if (begin < content.size()) ranges.push_back({begin, content.size()});
  return ranges;
}

void for_each_document(std::string_view content, ByteRange range, DocumentKind kind,
                       const DocumentRules& rules, const std::string& source,
                       const std::function<void(std::string_view)>& visit) {
  if (kind == DocumentKind::kJsonLines) return visit_lines(content, range, rules, source, visit);
  if (kind == DocumentKind::kJsonArray) return visit_array(content, rules, source, visit);
  std::string_view rest = content.substr(range.begin, range.end - range.begin);
  if (!rules.separator) return visit(rest);
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(*rules.separator), rest.size());
    visit(rest.substr(0, end));
    rest.remove_prefix(std::min(rest.size(), end + rules.separator->size()));
  }
}

}  // namespace qianli::data
