// JSON as the values of a pickle.
#pragma once

#include "qianli/base/json.h"
#include "qianli/formats/pickle.h"

namespace qianli::testing {

inline formats::Value value_of(const Json& json) {
  using formats::Value;
  if (json.is_boolean()) return Value::boolean(json.get<bool>());
  if (json.is_number_integer()) return Value::integer(json.get<int64_t>());
  if (json.is_number()) return Value::real(json.get<double>());
  if (json.is_string()) return Value::text(json.get<std::string>());
  formats::Values items;
  formats::Entries entries;
  for (const auto& [name, item] : json.items()) {
    items.push_back(value_of(item));
    entries.emplace_back(Value::text(name), items.back());
  }
  if (json.is_object()) return Value::dict(std::move(entries));
  return json.is_array() ? Value::list(std::move(items)) : Value();
}

}  // namespace qianli::testing
