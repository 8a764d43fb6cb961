#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/data/instruction/prepare.h"

namespace qianli::data {
namespace {

constexpr size_t kLookedAt = 100;

// Those that can be read; the others are told when all rows are.
std::vector<OrderedJson> first_rows(const fs::path& path) {
  std::vector<OrderedJson> rows;
  for_first_rows(
      path, kLookedAt,
      [&](const OrderedJson& columns, const std::string&) { rows.push_back(columns); },
      [](const std::string&) {});
  return rows;
}

// Files of several formats are no one data set.
void check_alike(const std::vector<fs::path>& files, const DetectedFormat& first) {
  for (size_t i = 1; i < files.size(); ++i) {
    const DetectedFormat other = detect_format(first_rows(files[i]), files[i].string());
    if (other.format == first.format && other.task == first.task) continue;
    throw DataError("data",
                    fmt::format("expected rows of one format, got {} ({}) in {} and {} ({}) in {}",
                                name_of(first.format), name_of(first.task), files[0].string(),
                                name_of(other.format), name_of(other.task), files[i].string()),
                    "prepare them one by one, or say --format");
  }
}

}  // namespace

KnownRows look_at_rows(const RowsOptions& options) {
  InputFiles input = input_files(options.inputs);
  if (input.files.empty()) throw ConfigError("data", "expected at least one input file, got none");
  KnownRows known{.files = std::move(input.files),
                  .legacy = options.legacy,
                  .max_rows = options.max_rows,
                  .notices = std::move(input.notices)};
  const fs::path& first = known.files[0];
  const std::vector<OrderedJson> rows = first_rows(first);
  std::string map_keys = options.map_keys;
  if (options.format) {
    known.format = *options.format;
    known.task =
        options.task.value_or(known.format == RowFormat::kSteps ? InstructionTask::kProcessReward
                                                                : InstructionTask::kSft);
  } else {
    const DetectedFormat found = detect_format(rows, first.string());
    check_alike(known.files, found);
    known.format = found.format;
    known.task = options.task.value_or(found.task);
    if (map_keys.empty()) map_keys = found.map_keys;
    known.notices.push_back(fmt::format("{}: rows look like the format {}, used for {}",
                                        first.string(), name_of(known.format),
                                        name_of(known.task)));
  }
  if ((known.format == RowFormat::kSteps) != (known.task == InstructionTask::kProcessReward))
    throw ConfigError("data",
                      "expected the format steps with the task process-reward and no other");
  known.columns = column_map(known.format, map_keys);
  check_columns(known.columns, rows, first.string());
  return known;
}

}  // namespace qianli::data
