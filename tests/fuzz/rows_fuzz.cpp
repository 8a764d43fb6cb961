// Files of instruction data from strangers: rows are the same in whatever ranges they are read, and
// each is an example of some format or refused.
#include <string>

#include "qianli/base/error.h"
#include "qianli/data/instruction/example.h"
#include "qianli/data/instruction/openai_messages.h"
#include "qianli/data/instruction/rows.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace qianli;
using namespace qianli::data;

std::string all_rows(const RowFile& file, uint64_t range_bytes) {
  std::string all;
  uint64_t end = 0;
  for (const RowRange& range : cut_rows(file.content, file.kind, file.name, range_bytes)) {
    fuzz::require(range.bytes.begin >= end && range.bytes.end <= file.content.size(),
                  "ranges ascend within the file");
    end = range.bytes.end;
    for_each_row(
        file, range,
        [&](const OrderedJson& columns, const std::string& place) {
          fuzz::require(columns.is_object(), "a row is an object");
          all += place + columns.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
        },
        [&](const std::string& problem) { all += problem; });
  }
  return all;
}

void read_examples(const std::vector<OrderedJson>& rows) {
  try {
    detect_format(rows, "x");
  } catch (const DataError&) {
  }
  for (const OrderedJson& row : rows) {
    for (const std::string& name : row_format_names()) {
      const RowFormat format = row_format(name);
      for (const auto task : {InstructionTask::kSft, InstructionTask::kPreference}) {
        try {
          const Example example = read_example(
              row, {.format = format, .task = task, .columns = column_map(format, "")});
          fuzz::require(task == InstructionTask::kSft || example.chosen.has_value() ||
                            format == RowFormat::kText || format == RowFormat::kSteps,
                        "a pair has its answers");
          openai_messages(example.conversation);
        } catch (const DataError&) {
        }
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view content{reinterpret_cast<const char*>(data), size};
  for (const char* name : {"x.json", "x.jsonl", "x.csv", "x.txt"}) {
    try {
      const RowFile file = row_file(name, content);
      std::vector<OrderedJson> rows;
      for_first_rows(
          file, 3, [&](const OrderedJson& row, const std::string&) { rows.push_back(row); },
          [](const std::string&) {});
      read_examples(rows);
      fuzz::require(all_rows(file, 1) == all_rows(file, size + 1), "ranges change nothing");
    } catch (const Error&) {
    }
  }
  return 0;
}
