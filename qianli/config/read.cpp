#include "qianli/config/read.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <type_traits>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::config {
namespace {

using Kind = YamlNode::Kind;

constexpr size_t kShownBytes = 60;      // of a wrong value in a message
constexpr size_t kTextBytes = 1 << 16;  // longest text value

// The beginning of a text for a message: control bytes would reach the terminal, so they become
// '?'.
std::string excerpt(const std::string& text) {
  size_t size = std::min(text.size(), kShownBytes);
  while (size < text.size() && size > 0 && (text[size] & 0xC0) == 0x80) --size;  // whole characters
  std::string shown = text.substr(0, size);
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return shown + (size < text.size() ? "…" : "");
}

std::string shown(const YamlNode& node) {
  if (node.kind == Kind::kNull) return "nothing";
  if (node.kind == Kind::kList) {
    std::string items;
    for (const auto& entry : node.entries) {
      if (entry.value.kind != Kind::kScalar || items.size() > kShownBytes) return "a list";
      items += (items.empty() ? "" : ", ") + excerpt(entry.value.text);
    }
    return "[" + items + "]";
  }
  if (node.kind == Kind::kMap) return "a map";
  return (node.quoted ? "the text '" : "'") + excerpt(node.text) + "'";
}

bool in_range(const Option& option, double value) {
  const bool low = option.open_min ? value > option.min : value >= option.min;
  const bool high = option.open_max ? value < option.max : value <= option.max;
  return low && high;
}

// Each parse() returns false when the node is not such a value; the caller then says what was
// expected.
bool parse(const Option&, const YamlNode& node, bool& value) {
  if (node.kind != Kind::kScalar || node.quoted) return false;
  if (node.text != "true" && node.text != "false") return false;
  value = node.text == "true";
  return true;
}

template <class Number>
bool parse_number(const Option& option, const YamlNode& node, Number& value) {
  if (node.kind != Kind::kScalar || node.quoted) return false;
  const char* begin = node.text.data();
  const char* end = begin + node.text.size();
  if (begin != end && *begin == '+') ++begin;
  Number parsed{};
  const auto [rest, error] = std::from_chars(begin, end, parsed);
  if (error != std::errc{} || rest != end) return false;
  if (!std::isfinite(static_cast<double>(parsed))) return false;
  if (!in_range(option, static_cast<double>(parsed))) return false;
  value = parsed;
  return true;
}
bool parse(const Option& option, const YamlNode& node, int64_t& value) {
  return parse_number(option, node, value);
}
bool parse(const Option& option, const YamlNode& node, double& value) {
  return parse_number(option, node, value);
}

bool parse(const Option& option, const YamlNode& node, std::string& value) {
  if (node.kind != Kind::kScalar || node.text.empty() || node.text.size() > kTextBytes)
    return false;
  if (node.text.find('\0') != std::string::npos) return false;
  const auto& choices = option.choices;
  if (!choices.empty() && std::find(choices.begin(), choices.end(), node.text) == choices.end()) {
    return false;
  }
  value = node.text;
  return true;
}

// `auto` stands for absence where it cannot be a value of its own.
template <class T>
bool parse(const Option& option, const YamlNode& node, std::optional<T>& value) {
  constexpr bool kText = std::is_same_v<T, std::string>;
  const bool free_text = kText && option.choices.empty();
  if (node.kind == Kind::kNull ||
      (!free_text && node.kind == Kind::kScalar && !node.quoted && node.text == "auto")) {
    value.reset();
    return true;
  }
  T parsed{};
  if (!parse(option, node, parsed)) return false;
  value = std::move(parsed);
  return true;
}

bool parse(const Option& option, const YamlNode& node, std::array<double, 2>& values) {
  if (node.kind != Kind::kList || node.entries.size() != values.size()) return false;
  std::array<double, 2> parsed{};
  for (size_t i = 0; i < parsed.size(); ++i) {
    if (!parse(option, node.entries[i].value, parsed[i])) return false;
  }
  values = parsed;
  return true;
}

std::string range_words(const Option& option) {
  const bool low = std::isfinite(option.min);
  const bool high = std::isfinite(option.max);
  if (low && high && option.min == option.max) return fmt::format(" equal to {}", option.min);
  if (low && high && !option.open_min && !option.open_max) {
    return fmt::format(" from {} to {}", option.min, option.max);
  }
  std::string text;
  if (low) text += fmt::format(" {} {}", option.open_min ? "above" : "of at least", option.min);
  if (low && high) text += " and";
  if (high) text += fmt::format(" {} {}", option.open_max ? "below" : "of at most", option.max);
  return text;
}

std::string with_choices(const Option& option, std::string_view otherwise) {
  if (option.choices.empty()) return std::string(otherwise);
  return fmt::format("one of {}", fmt::join(option.choices, ", "));
}

}  // namespace

std::string expectation(const Field& field) {
  const Option& option = field.option;
  const std::string range = range_words(option);
  const auto words = [&](const auto& value) -> std::string {
    using T = std::remove_pointer_t<std::decay_t<decltype(value)>>;
    if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::optional<bool>>) {
      return "true or false";
    } else if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, std::optional<int64_t>>) {
      return "a whole number" + range;
    } else if constexpr (std::is_same_v<T, double> || std::is_same_v<T, std::optional<double>>) {
      return "a number" + range;
    } else if constexpr (std::is_same_v<T, std::array<double, 2>>) {
      return "a list of two numbers" + range;
    } else if constexpr (std::is_same_v<T, Section>) {
      return value.shorthand ? "a name or a map of options" : "a map of options";
    } else if constexpr (std::is_same_v<T, List>) {
      const Section item = value.sample();
      return item.shorthand ? fmt::format("a {} or a list", item.fields.front().option.key)
                            : "a list of maps";
    } else {
      return with_choices(option, "text");
    }
  };
  return std::visit(words, field.value);
}

std::string Reader::place(int line) const {
  return is_file_ ? fmt::format("{}:{}", source_, line) : source_;
}

void Reader::wrong(const Field& field, const std::string& path, const YamlNode& node) const {
  std::string hint(field.option.hint);
  if (hint.empty() && node.kind == Kind::kScalar && !field.option.choices.empty()) {
    const std::vector<std::string> choices(field.option.choices.begin(),
                                           field.option.choices.end());
    if (const auto near = nearest_name(node.text, choices)) hint = "did you mean " + *near;
  }
  const bool takes_text = !field.option.choices.empty() || node.text.empty();
  if (hint.empty() && node.quoted && !takes_text)
    hint = "numbers, true and false are written without quotes";
  double number = 0;
  if (hint.empty() && node.text.find('e') != std::string::npos && parse_number({}, node, number) &&
      number == std::floor(number) && std::abs(number) < 1e15) {
    hint = fmt::format("write whole numbers in digits, as {:.0f}", number);
  }
  if (hint.empty()) hint = fmt::format("see `qianli config explain {}`", path);
  throw ConfigError("config",
                    fmt::format("{}: expected {} to be {}, got {}", place(node.line), path,
                                expectation(field), shown(node)),
                    hint);
}

void Reader::read(const Field& field, const YamlNode& node, const std::string& path) {
  places_[path] = place(node.line);
  const auto store = [&](const auto& value) {
    using T = std::decay_t<decltype(value)>;
    if constexpr (std::is_same_v<T, Section>) {
      const bool scalar = node.kind == Kind::kScalar && value.shorthand;
      if (node.kind == Kind::kList || (node.kind == Kind::kScalar && !scalar)) {
        wrong(field, path, node);
      }
      if (scalar) value.reset();
      if (scalar) {
        read(value.fields.front(), node, path + "." + std::string(value.fields[0].option.key));
      } else {
        read_section(value, node, path + ".");
      }
    } else if constexpr (std::is_same_v<T, List>) {
      const bool single = node.kind != Kind::kList && value.sample().shorthand;
      if (node.kind == Kind::kNull || (node.kind != Kind::kList && !single)) {
        wrong(field, path, node);
      }
      read_list(value, node, path);
    } else {
      if (!parse(field.option, node, *value)) wrong(field, path, node);
    }
  };
  std::visit(store, field.value);
}

void Reader::read_section(const Section& section, const YamlNode& node, const std::string& prefix) {
  for (const YamlEntry& entry : node.entries) {
    const auto known =
        std::find_if(section.fields.begin(), section.fields.end(),
                     [&](const Field& field) { return field.option.key == entry.key; });
    const std::string path = prefix + entry.key;
    if (known == section.fields.end()) {
      throw ConfigError("config",
                        fmt::format("{}: expected a known option, got '{}'{}", place(entry.line),
                                    excerpt(path), suggest_path(root_, path)));
    }
    read(*known, entry.value, path);
  }
}

void Reader::read_list(const List& list, const YamlNode& node, const std::string& path) {
  list.clear();
  if (node.kind != Kind::kList) return read_item(list.append(), node, path);
  for (const YamlEntry& entry : node.entries) read_item(list.append(), entry.value, path);
}

void Reader::read_item(const Section& item, const YamlNode& node, const std::string& path) {
  const Field& first = item.fields.front();
  const std::string first_path = path + "." + std::string(first.option.key);
  if (node.kind == Kind::kScalar && item.shorthand) return read(first, node, first_path);
  if (node.kind != Kind::kMap) {
    throw ConfigError("config", fmt::format("{}: expected each item of {} to be a map{}, got {}",
                                            place(node.line), path,
                                            item.shorthand ? " or a path" : "", shown(node)));
  }
  const bool has_first =
      std::any_of(node.entries.begin(), node.entries.end(),
                  [&](const auto& entry) { return entry.key == first.option.key; });
  if (!has_first) {
    throw ConfigError("config", fmt::format("{}: expected each item of {} to have '{}', got none",
                                            place(node.line), path, first.option.key));
  }
  read_section(item, node, path + ".");
}

void Reader::read_file_section(Section& section, const YamlNode& node, const std::string& source) {
  source_ = source;
  is_file_ = true;
  if (node.kind != Kind::kMap && node.kind != Kind::kNull) {
    throw ConfigError("config", fmt::format("{}: expected a map of options, got {}",
                                            place(node.line), shown(node)));
  }
  read_section(section, node, "");
}

void Reader::check_list_parent(const std::string& key) const {
  for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', dot + 1)) {
    const auto parent = find_field(root_, key.substr(0, dot));
    if (parent && std::holds_alternative<List>(parent->value)) {
      throw ConfigError("config",
                        fmt::format("{}: expected a key outside lists, got '{}'", source_, key),
                        fmt::format("give the whole list: {}=[{{…}}, …]", key.substr(0, dot)));
    }
  }
}

void Reader::read_override(const std::string& text) {
  const size_t equals = text.find('=');
  const std::string key(trim(std::string_view(text).substr(0, equals)));
  source_ = fmt::format("override '{}'", excerpt(text));
  is_file_ = false;
  if (equals == std::string::npos || key.empty()) {
    throw ConfigError("config", fmt::format("expected key=value, got '{}'", excerpt(text)),
                      "for example optim.lr=3e-4");
  }
  check_list_parent(key);
  const auto field = find_field(root_, key);
  if (!field) {
    throw ConfigError("config", fmt::format("{}: expected a known option, got '{}'{}", source_,
                                            excerpt(key), suggest_path(root_, key)));
  }
  read(*field, parse_yaml(text.substr(equals + 1), source_), key);
}

}  // namespace qianli::config
