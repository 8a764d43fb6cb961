// The values of a GGUF file's metadata that describe a model, by key.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/formats/gguf.h"

namespace qianli::convert {

class GgufKeys {
 public:
  // `source` names the file in errors.
  explicit GgufKeys(std::string source) : source_(std::move(source)) {}
  // Those of a file but for long lists (tokens). Throws CheckpointError for numbers out of range.
  GgufKeys(const std::map<std::string, formats::GgufValue, std::less<>>& metadata,
           std::string source);

  using Value = formats::GgufMetadataValue;
  void set(const std::string& key, Value value) { values_[key] = std::move(value); }
  const std::map<std::string, Value, std::less<>>& values() const { return values_; }
  const std::string& source() const { return source_; }

  // Nothing where the key is absent; CheckpointError naming it where the value is of another kind.
  // A list of one number for each layer counts as that number where all are the same.
  std::optional<int64_t> integer(std::string_view key) const;
  // As the shortest decimal that is this float32: 1e-5, not 9.99999974e-06.
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> flag(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  // Lists; one integer stands for `count` of them. Empty where the key is absent.
  std::vector<int64_t> integers(std::string_view key, int64_t count) const;
  std::vector<double> numbers(std::string_view key) const;

  [[noreturn]] void refuse(std::string_view key, const std::string& expected) const;

 private:
  const Value* find(std::string_view key) const;

  std::string source_;
  std::map<std::string, Value, std::less<>> values_;
};

// The double that is written with the fewest digits among those that round to `value`.
double shortest_double(float value);

}  // namespace qianli::convert
