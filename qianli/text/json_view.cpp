#include "qianli/text/json_view.h"

#include <fmt/core.h>

#include "qianli/base/error.h"

namespace qianli::text {

std::string JsonView::where() const {
  return path_.empty() ? *source_ : fmt::format("{} of {}", path_, *source_);
}

void JsonView::refuse(std::string_view expected, std::string_view got) const {
  throw DataError("tokenizer", fmt::format("expected {} at {}, got {}", expected, where(), got));
}

void JsonView::unsupported(std::string_view what) const {
  throw DataError("tokenizer",
                  fmt::format("expected a supported tokenizer, got {} at {}", what, where()));
}

std::string_view JsonView::kind() const {
  if (is_null()) return "null";
  if (is_object()) return "an object";
  if (is_array()) return "a list";
  if (is_string()) return "a string";
  return is_bool() ? "a truth value" : "a number";
}

std::optional<JsonView> JsonView::find(std::string_view key) const {
  simdjson::dom::element child;
  if (object().at_key(key).get(child) != simdjson::SUCCESS || child.is_null()) return std::nullopt;
  return JsonView(child, *source_,
                  path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key));
}

JsonView JsonView::at(std::string_view key) const {
  auto child = find(key);
  if (!child) refuse(fmt::format("a key '{}'", key), "none");
  return *std::move(child);
}

simdjson::dom::object JsonView::object() const {
  simdjson::dom::object object;
  if (value_.get(object) != simdjson::SUCCESS) refuse("an object", kind());
  return object;
}

simdjson::dom::array JsonView::array() const {
  simdjson::dom::array array;
  if (value_.get(array) != simdjson::SUCCESS) refuse("a list", kind());
  return array;
}

std::vector<JsonView> JsonView::items() const {
  std::vector<JsonView> views;
  size_t index = 0;
  for (const auto item : array()) {
    views.push_back(JsonView(item, *source_, fmt::format("{}[{}]", path_, index++)));
  }
  return views;
}

std::string_view JsonView::string() const {
  std::string_view text;
  if (value_.get(text) != simdjson::SUCCESS) refuse("a string", kind());
  return text;
}

bool JsonView::boolean() const {
  bool truth = false;
  if (value_.get(truth) != simdjson::SUCCESS) refuse("true or false", kind());
  return truth;
}

double JsonView::number() const {
  double number = 0;
  if (value_.get(number) != simdjson::SUCCESS) refuse("a number", kind());
  return number;
}

int64_t JsonView::integer(int64_t lowest, int64_t highest) const {
  int64_t number = 0;
  if (value_.get(number) != simdjson::SUCCESS) refuse("an integer", kind());
  if (number < lowest || number > highest) {
    refuse(fmt::format("an integer from {} to {}", lowest, highest), fmt::format("{}", number));
  }
  return number;
}

std::string_view JsonView::string_or(std::string_view key, std::string_view otherwise) const {
  const auto child = find(key);
  return child ? child->string() : otherwise;
}

bool JsonView::boolean_or(std::string_view key, bool otherwise) const {
  const auto child = find(key);
  return child ? child->boolean() : otherwise;
}

}  // namespace qianli::text
