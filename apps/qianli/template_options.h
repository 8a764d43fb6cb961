// Options of chat templates that several commands share.
#pragma once

#include <string>
#include <vector>

#include "qianli/base/json.h"

namespace qianli::app {

// "enable_thinking=false": a JSON value, else a text. ConfigError for what is not NAME=VALUE.
OrderedJson read_variables(const std::vector<std::string>& settings);
// "Named templates:" and the names, in lines.
std::string list_of_templates();

}  // namespace qianli::app
