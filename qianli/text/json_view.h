// A value of a parsed JSON file that knows its place, so that every complaint names file and key.
// Internal: only sources that parse tokenizer files include it (simdjson is a heavy header).
#pragma once

#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qianli::text {

class JsonView {
 public:
  // `source` outlives the view and all views made from it; so does the parser of `value`.
  JsonView(simdjson::dom::element value, const std::string& source)
      : JsonView(value, source, std::string{}) {}

  // "model.vocab of dir/tokenizer.json"
  std::string where() const;
  // Throws DataError "expected EXPECTED at KEY of FILE, got GOT".
  [[noreturn]] void refuse(std::string_view expected, std::string_view got) const;
  // A feature that the file asks for and we do not have.
  [[noreturn]] void unsupported(std::string_view what) const;

  bool is_null() const { return value_.is_null(); }
  bool is_object() const { return value_.is_object(); }
  bool is_array() const { return value_.is_array(); }
  bool is_string() const { return value_.is_string(); }
  bool is_number() const { return value_.is_number(); }
  bool is_bool() const { return value_.is_bool(); }

  JsonView at(std::string_view key) const;
  // Absent and null are alike.
  std::optional<JsonView> find(std::string_view key) const;
  std::vector<JsonView> items() const;
  simdjson::dom::object object() const;
  simdjson::dom::array array() const;

  std::string_view string() const;
  bool boolean() const;
  double number() const;
  int64_t integer(int64_t lowest, int64_t highest) const;

  std::string_view string_or(std::string_view key, std::string_view otherwise) const;
  bool boolean_or(std::string_view key, bool otherwise) const;
  std::string_view type() const { return at("type").string(); }

 private:
  JsonView(simdjson::dom::element value, const std::string& source, std::string path)
      : value_(value), source_(&source), path_(std::move(path)) {}
  std::string_view kind() const;
  simdjson::dom::element value_;
  const std::string* source_;
  std::string path_;
};

}  // namespace qianli::text
