#include "qianli/model/config_reader.h"

#include <fmt/core.h>

#include <cmath>

#include "qianli/base/error.h"

namespace qianli::model {

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 120) text = text.substr(0, 117) + "...";
  return text;
}

ConfigReader::ConfigReader(const Json& object, std::string source, std::string path)
    : object_(object), source_(std::move(source)), path_(std::move(path)) {
  if (!object_.is_object()) {
    const std::string what = path_.empty() ? "" : path_.substr(0, path_.size() - 1) + " of ";
    throw ConfigError("model", fmt::format("expected {}{} to be a JSON object, got {}", what,
                                           source_, shown(object_)));
  }
}

void ConfigReader::fail(const std::string& key, const std::string& expected,
                        const std::string& hint) const {
  const std::string got = object_.contains(key) ? shown(object_.at(key)) : "nothing";
  throw ConfigError(
      "model",
      fmt::format("expected {} for '{}{}' in {}, got {}", expected, path_, key, source_, got),
      hint);
}

bool ConfigReader::has(const std::string& key) const { return !raw(key).is_null(); }

const Json& ConfigReader::raw(const std::string& key) const {
  static const Json kNull;
  read_.insert(key);
  const auto found = object_.find(key);
  return found == object_.end() ? kNull : *found;
}

int64_t ConfigReader::to_integer(const std::string& key, const Json& value) const {
  if (value.is_number_unsigned() && value.get<uint64_t>() <= uint64_t{INT64_MAX}) {
    return static_cast<int64_t>(value.get<uint64_t>());
  }
  if (value.is_number_integer() && !value.is_number_unsigned()) return value.get<int64_t>();
  // Some writers spell counts as 8192.0; up to 2^53 that is exact.
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::abs(number) <= 0x1p53 && number == std::floor(number)) {
      return static_cast<int64_t>(number);
    }
  }
  fail(key, "an integer");
}

int64_t ConfigReader::integer(const std::string& key) const { return to_integer(key, raw(key)); }

int64_t ConfigReader::integer(const std::string& key, int64_t fallback) const {
  return has(key) ? integer(key) : fallback;
}

std::optional<int64_t> ConfigReader::optional_integer(const std::string& key) const {
  return has(key) ? std::optional(integer(key)) : std::nullopt;
}

double ConfigReader::number(const std::string& key) const {
  const Json& value = raw(key);
  if (!value.is_number()) fail(key, "a number");
  return value.get<double>();
}

double ConfigReader::number(const std::string& key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool ConfigReader::flag(const std::string& key, bool fallback) const {
  const Json& value = raw(key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) fail(key, "true or false");
  return value.get<bool>();
}

std::string ConfigReader::text(const std::string& key, const std::string& fallback) const {
  const Json& value = raw(key);
  if (value.is_null()) return fallback;
  if (!value.is_string()) fail(key, "a text");
  return value.get<std::string>();
}

std::vector<int64_t> ConfigReader::integers(const std::string& key) const {
  const Json& value = raw(key);
  if (value.is_null()) return {};
  if (!value.is_array()) return {to_integer(key, value)};
  std::vector<int64_t> numbers;
  for (const Json& element : value) numbers.push_back(to_integer(key, element));
  return numbers;
}

std::vector<double> ConfigReader::numbers(const std::string& key) const {
  const Json& value = raw(key);
  if (!value.is_array()) fail(key, "a list of numbers");
  std::vector<double> numbers;
  for (const Json& element : value) {
    if (!element.is_number()) fail(key, "a list of numbers");
    numbers.push_back(element.get<double>());
  }
  return numbers;
}

std::vector<std::string> ConfigReader::texts(const std::string& key) const {
  const Json& value = raw(key);
  if (value.is_null()) return {};
  if (!value.is_array()) fail(key, "a list of texts");
  std::vector<std::string> texts;
  for (const Json& element : value) {
    if (!element.is_string()) fail(key, "a list of texts");
    texts.push_back(element.get<std::string>());
  }
  return texts;
}

ConfigReader ConfigReader::child(const std::string& key) const {
  return ConfigReader(raw(key), source_, path_ + key + ".");
}

std::vector<std::string> ConfigReader::unread() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object_.items()) {
    if (!read_.contains(key)) keys.push_back(key);
  }
  return keys;
}

}  // namespace qianli::model
