// metrics.jsonl of a run, step by step: one JSON object a line, "step" ascending.
// Lines of one step that follow each other are one record.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qianli/base/file.h"

namespace qianli::runs {

inline constexpr char kMetricsName[] = "metrics.jsonl";

struct MetricsRecord {
  int64_t step = 0;
  // Names and values in the order of the names; those of nested objects are "moe_layers.NAME.KEY",
  // of lists "KEY.0". null, which stands for NaN and infinities, is NaN. Text is left out.
  std::vector<std::pair<std::string, double>> values;
};

// Only one step and the line behind it are in memory. What is no such file is a DataError naming file and line.
class MetricsReader {
 public:
  // `text` outlives the reader; `source` names it in errors.
  MetricsReader(std::string_view text, std::string source);
  // A file that is not there has no steps.
  static MetricsReader open(const fs::path& file);

  // Nothing behind the last step. A last line without its end that cannot be read is left out: a
  // run that was killed may leave half a line.
  std::optional<MetricsRecord> next();
  // Whether that was so.
  bool cut_off() const { return cut_off_; }

 private:
  std::string_view take_line();
  std::optional<MetricsRecord> read_line();

  std::shared_ptr<const MappedFile> file_;
  std::string_view rest_;
  std::string source_;
  int64_t line_ = 0;                    // the last that was taken
  int64_t step_ = 0;                    // of that line
  std::optional<MetricsRecord> ahead_;  // the line behind the record that was given
  bool cut_off_ = false;
};

}  // namespace qianli::runs
