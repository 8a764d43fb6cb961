#include "qianli/runs/metrics_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/strings.h"

namespace qianli::runs {
namespace {

using Value = std::pair<std::string, double>;

constexpr size_t kMaxLine = size_t{1} << 20;
constexpr size_t kMaxValues = kMaxLine;  // of one step
constexpr size_t kMaxName = 256;  // names of deep objects grow with every level

[[noreturn]] void refuse(const std::string& line, const std::string& problem) {
  throw DataError("metrics", fmt::format("{}: {}", line, problem));
}

class RecordReader {
 public:
  explicit RecordReader(const std::string& line) : line_(line) {}

  MetricsRecord read(std::string_view text) {
    if (text.size() > kMaxLine)
      refuse(line_, fmt::format("expected at most {} bytes, got {}", kMaxLine, text.size()));
    const Json json = parse_json(text, line_, FileRole::kData);
    if (!json.is_object()) refuse(line_, "expected an object");
    record_.step = step_of(json);
    for (const auto& [key, value] : json.items()) {
      if (key != "step") add(key, value);
    }
    return std::move(record_);
  }

 private:
  int64_t step_of(const Json& json) const {
    const auto step = json.find("step");
    const bool whole = step != json.end() && step->is_number_unsigned() &&
                       step->get<uint64_t>() <= uint64_t{INT64_MAX};
    if (!whole) refuse(line_, "expected \"step\", a whole number from 0");
    return step->get<int64_t>();
  }

  void add(const std::string& name, const Json& value) {
    if (name.size() > kMaxName)
      refuse(line_, fmt::format("expected names of at most {} bytes", kMaxName));
    if (value.is_structured()) {
      for (const auto& [key, below] : value.items()) add(name + "." + key, below);
    } else if (value.is_null()) {
      record_.values.emplace_back(name, std::numeric_limits<double>::quiet_NaN());
    } else if (value.is_boolean()) {
      record_.values.emplace_back(name, value.get<bool>() ? 1 : 0);
    } else if (value.is_number()) {
      record_.values.emplace_back(name, value.get<double>());
    }
  }

  const std::string& line_;  // for messages
  MetricsRecord record_;
};

}  // namespace

MetricsReader::MetricsReader(std::string_view text, std::string source)
    : rest_(text), source_(std::move(source)) {}

MetricsReader MetricsReader::open(const fs::path& file) {
  MetricsReader reader({}, file.string());
  if (!fs::exists(file)) return reader;
  reader.file_ = MappedFile::open(file, FileRole::kData);
  reader.rest_ = {reinterpret_cast<const char*>(reader.file_->data()), reader.file_->size()};
  return reader;
}

std::string_view MetricsReader::take_line() {
  const std::string_view line = rest_.substr(0, rest_.find('\n'));
  rest_.remove_prefix(std::min(rest_.size(), line.size() + 1));
  ++line_;
  return trim(line);
}

std::optional<MetricsRecord> MetricsReader::read_line() {
  while (!rest_.empty()) {
    const bool whole = rest_.find('\n') != rest_.npos;
    const std::string_view text = take_line();
    if (text.empty()) continue;
    const std::string line = fmt::format("{} line {}", source_, line_);
    try {
      MetricsRecord record = RecordReader(line).read(text);
      if (record.step < step_)
        refuse(line, fmt::format("expected a step from {} on, got {}", step_, record.step));
      step_ = record.step;
      return record;
    } catch (const DataError&) {
      if (whole) throw;
      cut_off_ = true;
    }
  }
  return std::nullopt;
}

std::optional<MetricsRecord> MetricsReader::next() {
  std::optional<MetricsRecord> record = ahead_ ? std::move(ahead_) : read_line();
  if (!record) return record;
  auto& values = record->values;
  while ((ahead_ = read_line()) && ahead_->step == record->step) {
    values.insert(values.end(), ahead_->values.begin(), ahead_->values.end());
    if (values.size() > kMaxValues)
      refuse(source_, fmt::format("step {} has more than {} values", record->step, kMaxValues));
  }
  std::ranges::sort(values, {}, &Value::first);
  const auto twice = std::ranges::adjacent_find(values, {}, &Value::first);
  if (twice != values.end())
    refuse(source_, fmt::format("step {} has '{}' twice", record->step, twice->first));
  return record;
}

}  // namespace qianli::runs
