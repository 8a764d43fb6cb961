#include "qianli/serve/fields.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/serve/api_error.h"

namespace qianli::serve {
namespace {

constexpr size_t kShown = 60;  // bytes of a value in a message

OrderedJson parse_object(std::string_view body) {
  OrderedJson json;
  try {
    json = parse_ordered_json(body, "the body", FileRole::kData);
  } catch (const Error& error) {
    throw ApiError(400, error.what());
  }
  if (!json.is_object()) throw ApiError(400, "expected a JSON object as the body");
  return json;
}

}  // namespace

void refuse(const std::string& param, const std::string& expected, const OrderedJson& got) {
  std::string shown = got.is_structured()
                          ? std::string(got.is_array() ? "a list" : "an object")
                          : got.dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
  if (shown.size() > kShown) shown = shown.substr(0, kShown) + "...";
  throw ApiError(400, fmt::format("{}: expected {}, got {}", param, expected, shown), param);
}

Fields::Fields(std::string_view body) : json_(parse_object(body)) {}

const OrderedJson* Fields::find(const std::string& key) {
  read_.insert(key);
  const auto place = json_.find(key);
  return place == json_.end() || place->is_null() ? nullptr : &*place;
}

std::optional<double> Fields::number(const std::string& key, double least, double most) {
  const OrderedJson* value = find(key);
  if (!value) return std::nullopt;
  const bool fits =
      value->is_number() && value->get<double>() >= least && value->get<double>() <= most;
  if (!fits) refuse(key, fmt::format("a number from {} to {}", least, most), *value);
  return value->get<double>();
}

std::optional<int64_t> Fields::integer(const std::string& key, int64_t least, int64_t most) {
  const OrderedJson* value = find(key);
  if (!value) return std::nullopt;
  // Numbers above the range of int64 are unsigned in nlohmann's tree.
  const bool whole = value->is_number_integer() &&
                     !(value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX);
  if (!whole || value->get<int64_t>() < least || value->get<int64_t>() > most)
    refuse(key, fmt::format("an integer from {} to {}", least, most), *value);
  return value->get<int64_t>();
}

bool Fields::flag(const std::string& key) {
  const OrderedJson* value = find(key);
  if (!value) return false;
  if (!value->is_boolean()) refuse(key, "true or false", *value);
  return value->get<bool>();
}

std::optional<std::string> Fields::text(const std::string& key) {
  const OrderedJson* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_string()) refuse(key, "a text", *value);
  return value->get<std::string>();
}

std::vector<std::string> Fields::texts(const std::string& key, size_t most, size_t longest) {
  const OrderedJson* value = find(key);
  if (!value) return {};
  const std::string expected =
      fmt::format("a text or up to {} texts, each of 1 to {} bytes", most, longest);
  const OrderedJson list = value->is_array() ? *value : OrderedJson::array({*value});
  if (list.size() > most) refuse(key, expected, *value);
  std::vector<std::string> texts;
  for (const OrderedJson& one : list) {
    if (!one.is_string()) refuse(key, expected, one);
    texts.push_back(one.get<std::string>());
    if (texts.back().empty() || texts.back().size() > longest) refuse(key, expected, one);
  }
  return texts;
}

void Fields::expect(const std::string& key, const std::vector<OrderedJson>& values) {
  const OrderedJson* value = find(key);
  if (!value || std::ranges::find(values, *value) != values.end()) return;
  std::string known;
  for (const OrderedJson& one : values) known += (known.empty() ? "" : " or ") + one.dump();
  refuse(key, known + " (nothing else is supported)", *value);
}

void Fields::finish() const {
  for (const auto& [key, value] : json_.items()) {
    if (read_.count(key)) continue;
    const std::string shown = key.substr(0, kShown);
    throw ApiError(400, fmt::format("unknown parameter '{}'", shown), shown, "unknown_parameter");
  }
}

}  // namespace qianli::serve
