#include "apps/qianli/template_options.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/text/chat/message.h"
#include "qianli/text/chat/named_template.h"

namespace qianli::app {

OrderedJson read_variables(const std::vector<std::string>& settings) {
  OrderedJson variables = OrderedJson::object();
  for (const std::string& setting : settings) {
    const size_t equals = setting.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw ConfigError("templates",
                        fmt::format("expected NAME=VALUE behind --set, got '{}'", setting));
    }
    const std::string value = setting.substr(equals + 1);
    const auto json = text::chat::try_json(value);
    variables[setting.substr(0, equals)] = json ? *json : OrderedJson(value);
  }
  return variables;
}

std::string list_of_templates() {
  std::vector<std::string> names;
  for (const auto& entry : text::chat::named_templates()) names.push_back(entry.name);
  std::string text = "Named templates:";
  size_t width = 0;
  for (const std::string& name : names) {
    text += width == 0 || width + name.size() > 76 ? "\n  " : " ";
    width = text.size() - text.rfind('\n');
    text += name;
  }
  return text;
}

}  // namespace qianli::app
