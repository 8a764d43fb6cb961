#include "qianli/convert/gguf/keys.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::convert {
namespace {

using formats::GgufType;
using formats::GgufValue;

constexpr uint64_t kMaxList = 100000;  // numbers of a list: one for each layer, or head
constexpr size_t kMaxText = size_t{1} << 20;

template <class T>
std::vector<T> numbers_of(const GgufValue::Array& array, uint64_t width,
                          T (*one)(const std::byte*)) {
  std::vector<T> numbers;
  for (uint64_t i = 0; i < array.count; ++i) numbers.push_back(one(&array.bytes[i * width]));
  return numbers;
}

template <class Stored, class T>
T load(const std::byte* bytes) {
  Stored value;
  std::memcpy(&value, bytes, sizeof value);
  return static_cast<T>(value);
}

// Lists of numbers that fit; other lists (texts, wide integers) describe no model.
std::optional<GgufKeys::Value> list_of(const GgufValue::Array& array) {
  if (array.count > kMaxList) return std::nullopt;
  switch (array.type) {
    case GgufType::kU8:
    case GgufType::kBool:
      return numbers_of<int32_t>(array, 1, load<uint8_t, int32_t>);
    case GgufType::kI32:
      return numbers_of<int32_t>(array, 4, load<int32_t, int32_t>);
    case GgufType::kU32: {
      const auto numbers = numbers_of<int64_t>(array, 4, load<uint32_t, int64_t>);
      if (std::ranges::any_of(numbers, [](int64_t n) { return n > INT32_MAX; }))
        return std::nullopt;
      return std::vector<int32_t>(numbers.begin(), numbers.end());
    }
    case GgufType::kF32:
      return numbers_of<float>(array, 4, load<float, float>);
    default:
      return std::nullopt;
  }
}

}  // namespace

double shortest_double(float value) {
  std::array<char, 64> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  double number = value;
  std::from_chars(text.data(), end, number);
  return number;
}

GgufKeys::GgufKeys(const std::map<std::string, GgufValue, std::less<>>& metadata,
                   std::string source)
    : source_(std::move(source)) {
  for (const auto& [key, value] : metadata) {
    if (const auto* number = std::get_if<uint64_t>(&value.value)) {
      if (*number > static_cast<uint64_t>(INT64_MAX)) refuse(key, "a smaller number");
      values_[key] = static_cast<int64_t>(*number);
    } else if (const auto* whole = std::get_if<int64_t>(&value.value)) {
      values_[key] = *whole;
    } else if (const auto* real = std::get_if<double>(&value.value)) {
      values_[key] = *real;
    } else if (const auto* flag = std::get_if<bool>(&value.value)) {
      values_[key] = *flag;
    } else if (const auto* text = std::get_if<std::string_view>(&value.value)) {
      if (text->size() <= kMaxText) values_[key] = std::string(*text);
    } else if (auto list = list_of(std::get<GgufValue::Array>(value.value))) {
      values_[key] = std::move(*list);
    }
  }
}

void GgufKeys::refuse(std::string_view key, const std::string& expected) const {
  throw CheckpointError(
      "convert", fmt::format("{}: expected {} under {}", source_, expected, key.substr(0, 100)));
}

const GgufKeys::Value* GgufKeys::find(std::string_view key) const {
  const auto place = values_.find(key);
  return place == values_.end() ? nullptr : &place->second;
}

std::optional<int64_t> GgufKeys::integer(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* number = std::get_if<int64_t>(value)) return *number;
  const auto* list = std::get_if<std::vector<int32_t>>(value);
  if (!list || list->empty()) refuse(key, "an integer");
  if (std::ranges::count(*list, list->front()) != std::ssize(*list)) {
    refuse(key, "the same number for all layers");
  }
  return list->front();
}

std::optional<double> GgufKeys::number(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* whole = std::get_if<int64_t>(value)) return static_cast<double>(*whole);
  const auto* number = std::get_if<double>(value);
  if (!number || !std::isfinite(*number)) refuse(key, "a number");
  const auto narrow = static_cast<float>(*number);
  return static_cast<double>(narrow) == *number ? shortest_double(narrow) : *number;
}

std::optional<bool> GgufKeys::flag(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return std::nullopt;
  const auto* flag = std::get_if<bool>(value);
  if (!flag) refuse(key, "true or false");
  return *flag;
}

std::optional<std::string> GgufKeys::text(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return std::nullopt;
  const auto* text = std::get_if<std::string>(value);
  if (!text) refuse(key, "a text");
  return *text;
}

std::vector<int64_t> GgufKeys::integers(std::string_view key, int64_t count) const {
  const Value* value = find(key);
  if (!value) return {};
  if (const auto* number = std::get_if<int64_t>(value))
    return std::vector<int64_t>(static_cast<size_t>(count), *number);
  const auto* list = std::get_if<std::vector<int32_t>>(value);
  if (!list) refuse(key, "integers");
  return {list->begin(), list->end()};
}

std::vector<double> GgufKeys::numbers(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return {};
  const auto* list = std::get_if<std::vector<float>>(value);
  if (!list) refuse(key, "a list of numbers");
  std::vector<double> numbers;
  for (const float number : *list) {
    if (!std::isfinite(number)) refuse(key, "numbers");
    numbers.push_back(shortest_double(number));
  }
  return numbers;
}

}  // namespace qianli::convert
