// The fields of a spec by name, listed once: comparing, reading patches and mapping keys of
// config.json walk this list. A path names a field: "num_layers", "rope.scaling.factor",
// "moe.num_experts".
#pragma once

#include <concepts>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "qianli/model/spec.h"

namespace qianli::model {

// A value with a fixed set of words.
struct WordField {
  std::function<std::string()> get;
  std::function<bool(std::string_view)> set;  // false: no such word
  std::vector<std::string> words;
};

// A list of words; "full" and "sliding" for layers.
struct WordListField {
  std::function<std::vector<std::string>()> get;
  std::function<bool(const std::vector<std::string>&)> set;
};

using FieldValue = std::variant<std::string*, bool*, int64_t*, double*, std::optional<int64_t>*,
                                std::optional<double>*, std::vector<int64_t>*, std::vector<double>*,
                                WordField, WordListField>;

struct SpecField {
  std::string path;
  FieldValue value;  // into the spec
};

// All fields that the spec has: those of an absent part (no `moe`) are left out.
std::vector<SpecField> fields_of(ModelSpec& spec);

// The field at `path`; makes the optional parts on the way. Nothing where there is no such field.
std::optional<FieldValue> field_at(ModelSpec& spec, std::string_view path);
// Whether the spec has the parts on the way to `path`.
bool has_field(const ModelSpec& spec, std::string_view path);

// Sets a field from text: numbers, true and false, words, lists with commas, "none" for an absent
// value or an empty list. Throws ConfigError.
void set_field(ModelSpec& spec, std::string_view path, std::string_view text);

// The value as set_field reads it.
std::string field_text(const FieldValue& value);

// A field in which two specs differ, as text; "none" where one lacks the part that has it.
struct FieldDifference {
  std::string path, a, b;
};
std::vector<FieldDifference> field_differences(const ModelSpec& a, const ModelSpec& b);

}  // namespace qianli::model
