// Reading environment variables as numbers and texts.
#pragma once

#include <fmt/core.h>

#include <charconv>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "qianli/base/error.h"
#include "qianli/launch/rank_environment.h"

namespace qianli::launch {

constexpr int kMostRanks = 1 << 24;

class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}

  // The value; null where absent or empty.
  const std::string* find(std::string_view name) const {
    const auto found = environment_.find(name);
    return found == environment_.end() || found->second.empty() ? nullptr : &found->second;
  }
  bool has(std::string_view name) const { return find(name) != nullptr; }
  std::string text(std::string_view name) const { return has(name) ? *find(name) : ""; }

  std::optional<int> number(std::string_view name, int least, int most) const {
    const std::string* text = find(name);
    if (text == nullptr) return std::nullopt;
    int value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc() || end != text->data() + text->size() || value < least ||
        value > most) {
      throw ConfigError(
          "launch", fmt::format("environment: expected {} between {} and {}, got '{}'", name, least,
                                most, text->substr(0, 40)));
    }
    return value;
  }
  // The first of the names that is set.
  std::optional<int> count(std::initializer_list<const char*> names) const {
    for (const char* name : names)
      if (const auto value = number(name, 1, kMostRanks)) return value;
    return std::nullopt;
  }
  std::optional<int> index(std::initializer_list<const char*> names) const {
    for (const char* name : names)
      if (const auto value = number(name, 0, kMostRanks)) return value;
    return std::nullopt;
  }

 private:
  const Environment& environment_;
};

// The value, or a ConfigError that names what is missing beside what.
template <class T>
T require(const std::optional<T>& value, std::string_view missing, std::string_view present,
          std::string_view hint) {
  if (value) return *value;
  throw ConfigError("launch",
                    fmt::format("environment: expected {} beside {}, got none", missing, present),
                    hint);
}

}  // namespace qianli::launch
