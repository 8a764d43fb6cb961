// Reads keys of a config.json by type, remembers which were read, and names file and key in errors.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "qianli/base/json.h"

namespace qianli::model {

// Holds a reference to `object`, which outlives it. All failures throw ConfigError.
class ConfigReader {
 public:
  // `source` names the file; `path` is put before keys ("rope_scaling.").
  ConfigReader(const Json& object, std::string source, std::string path = {});

  bool contains(const std::string& key) const { return object_.contains(key); }
  // The key is there and not null.
  bool has(const std::string& key) const;

  int64_t integer(const std::string& key) const;
  // Null counts as absent.
  int64_t integer(const std::string& key, int64_t fallback) const;
  std::optional<int64_t> optional_integer(const std::string& key) const;
  double number(const std::string& key, double fallback) const;
  double number(const std::string& key) const;
  bool flag(const std::string& key, bool fallback) const;
  std::string text(const std::string& key, const std::string& fallback) const;
  // A list of integers, or one integer, or nothing.
  std::vector<int64_t> integers(const std::string& key) const;
  std::vector<double> numbers(const std::string& key) const;
  std::vector<std::string> texts(const std::string& key) const;

  // The value as it stands; null when absent. Counts as read.
  const Json& raw(const std::string& key) const;
  ConfigReader child(const std::string& key) const;

  std::vector<std::string> unread() const;
  bool was_read(const std::string& key) const { return read_.contains(key); }
  const std::string& source() const { return source_; }
  [[noreturn]] void fail(const std::string& key, const std::string& expected,
                         const std::string& hint = {}) const;

 private:
  int64_t to_integer(const std::string& key, const Json& value) const;

  const Json& object_;
  std::string source_;
  std::string path_;
  mutable std::set<std::string> read_;
};

// At most 120 characters of the value, for messages.
std::string shown(const Json& value);

}  // namespace qianli::model
