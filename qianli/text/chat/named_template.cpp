#include "qianli/text/chat/named_template.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::text::chat {
namespace {

Part text(const char* value) { return {Part::Kind::kText, value}; }
Part token(const char* value) { return {Part::Kind::kToken, value}; }
Part bos() { return {Part::Kind::kBos, {}}; }
Part eos() { return {Part::Kind::kEos, {}}; }

std::vector<NamedTemplate> table() {
  std::vector<NamedTemplate> entries = {
#include "qianli/text/chat/named_templates.inc"
  };
  for (NamedTemplate& entry : entries) entry = completed(std::move(entry));
  return entries;
}

}  // namespace

NamedTemplate completed(NamedTemplate entry) {
  const auto with_eos = [&](const char* value) {
    return entry.efficient_eos ? Slot{text(value)} : Slot{text(value), eos()};
  };
  if (entry.assistant.empty()) entry.assistant = with_eos("{{content}}");
  if (entry.function.empty())
    entry.function = with_eos("Action: {{name}}\nAction Input: {{arguments}}");
  if (entry.observation.empty()) entry.observation = entry.user;
  return entry;
}

std::span<const NamedTemplate> named_templates() {
  static const std::vector<NamedTemplate> entries = table();
  return entries;
}

const NamedTemplate& named_template(std::string_view name) {
  std::vector<std::string> names;
  for (const NamedTemplate& entry : named_templates()) {
    if (entry.name == name) return entry;
    names.push_back(entry.name);
  }
  throw ConfigError("chat",
                    fmt::format("no chat template is called '{}'{}", name, suggestion(name, names)),
                    "known are " + join(names, ", "));
}

}  // namespace qianli::text::chat
