// Writing fields: as JSON, and JSON as the YAML of a resolved configuration.
#pragma once

#include <string>

#include "qianli/base/json.h"
#include "qianli/config/field.h"

namespace qianli::config {

// Null for an absent optional.
OrderedJson value_to_json(const Value& value);
// Without absent optionals and empty sections.
OrderedJson section_to_json(const Section& section);
// Block maps, flow lists, text quoted where YAML would read something else.
std::string json_to_yaml(const OrderedJson& object);

}  // namespace qianli::config
