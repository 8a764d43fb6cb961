#include "qianli/launch/nodelist.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::launch {
namespace {

constexpr size_t kMostText = 64 << 10;
constexpr uint32_t kMostRange = 65536;
constexpr size_t kMostDigits = 9;  // fits an int

[[noreturn]] void refuse(std::string_view text, std::string_view why) {
  constexpr size_t kShown = 80;
  throw ConfigError("launch",
                    fmt::format("expected a list of nodes as Slurm writes it, got '{}{}': {}",
                                text.substr(0, kShown), text.size() > kShown ? "…" : "", why));
}

std::optional<uint32_t> number(std::string_view digits) {
  uint32_t value = 0;
  if (digits.empty() || digits.size() > kMostDigits) return std::nullopt;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

bool is_host_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_';
}

// Commas outside of brackets end a name.
std::vector<std::string_view> names_of(std::string_view text) {
  std::vector<std::string_view> names;
  bool inside = false;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '[' || text[i] == ']') {
      if (inside == (text[i] == '[')) refuse(text, "the brackets do not match");
      inside = text[i] == '[';
    } else if (text[i] == ',' && !inside) {
      names.push_back(text.substr(begin, i - begin));
      begin = i + 1;
    } else if (!is_host_character(text[i]) && !(text[i] == ',' && inside)) {
      refuse(text, "a character that no host name has");
    }
  }
  if (inside) refuse(text, "the brackets do not match");
  names.push_back(text.substr(begin));
  return names;
}

// "003-005,7": 003, 004, 005, 7; the first `most`.
std::vector<std::string> numbers_of(std::string_view text, std::string_view inside, size_t most) {
  std::vector<std::string> numbers;
  for (const std::string& part : split(inside, ',')) {
    const size_t dash = part.find('-');
    const std::string first = part.substr(0, dash);
    const auto low = number(first);
    const auto high = dash == std::string::npos ? low : number(part.substr(dash + 1));
    if (!low || !high || *high < *low) refuse(text, fmt::format("'{}' is no range", part));
    if (*high - *low >= kMostRange) refuse(text, fmt::format("'{}' is too long", part));
    for (uint32_t i = *low; i <= *high && numbers.size() < most; ++i)
      numbers.push_back(fmt::format("{:0{}}", i, first.size()));
  }
  return numbers;
}

std::vector<std::string> hosts_of(std::string_view text, std::string_view name, size_t most) {
  std::vector<std::string> hosts{""};
  for (size_t at = 0; at < name.size();) {
    const size_t open = std::min(name.find('[', at), name.size());
    const size_t close = name.find(']', open);
    std::vector<std::string> tails{""};
    if (open < name.size()) tails = numbers_of(text, name.substr(open + 1, close - open - 1), most);
    std::vector<std::string> longer;
    for (const auto& host : hosts) {
      for (size_t i = 0; i < tails.size() && longer.size() < most; ++i)
        longer.push_back(host + std::string(name.substr(at, open - at)) + tails[i]);
    }
    hosts = std::move(longer);
    at = open < name.size() ? close + 1 : open;
  }
  if (name.empty()) refuse(text, "an empty name");
  return hosts;
}

}  // namespace

std::vector<std::string> expand_nodelist(std::string_view text, size_t most) {
  if (text.size() > kMostText) refuse(text, "it is longer than 64 KiB");
  std::vector<std::string> hosts;
  for (const std::string_view name : names_of(text)) {
    for (auto& host : hosts_of(text, name, std::max<size_t>(1, most - hosts.size()))) {
      if (hosts.size() < most) hosts.push_back(std::move(host));
    }
  }
  return hosts;
}

int tasks_on_node(std::string_view text, int node) {
  if (text.size() > kMostText) refuse(text, "it is longer than 64 KiB");
  uint64_t before = 0;
  std::optional<uint32_t> found;
  for (const std::string& part : split(text, ',')) {
    const size_t open = part.find("(x");
    const auto tasks = number(part.substr(0, open));
    auto times = std::optional<uint32_t>(1);
    if (open != std::string::npos) {
      times = part.ends_with(')') ? number(part.substr(open + 2, part.size() - open - 3))
                                  : std::nullopt;
    }
    if (!tasks || !times) refuse(text, fmt::format("'{}' is no count of tasks", part));
    before += *times;
    if (!found && static_cast<uint64_t>(node) < before) found = tasks;
  }
  if (!found) refuse(text, fmt::format("it has {} nodes, and this one is number {}", before, node));
  return static_cast<int>(*found);
}

}  // namespace qianli::launch
