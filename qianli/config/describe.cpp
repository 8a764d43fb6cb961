// Help and documentation, made from the declarations.
#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/config/read.h"
#include "qianli/config/write.h"

namespace qianli::config {
namespace {

const Section& defaults() {
  static Config config;
  static const Section root = fields_of(config);
  return root;
}

// The part below a section or list of sections, or null.
const Section* section_below(const Field& field, Section& storage) {
  if (const auto* section = std::get_if<Section>(&field.value)) return section;
  if (const auto* list = std::get_if<List>(&field.value)) return &(storage = list->sample());
  return nullptr;
}

std::string default_text(const Field& field) {
  const OrderedJson value = value_to_json(field.value);
  const bool unset = value.is_null() || value == "" || (value.is_structured() && value.empty());
  if (unset) return field.option.absent.empty() ? "none" : std::string(field.option.absent);
  const std::string line = json_to_yaml({{"x", value}});  // "x: VALUE\n"
  return line.substr(3, line.size() - 4);
}

std::string expectation_with_unit(const Field& field) {
  std::string text = expectation(field);
  if (!field.option.unit.empty()) text += fmt::format(" ({})", field.option.unit);
  return text;
}

std::string explain_field(const Field& field, const std::string& path) {
  const Option& option = field.option;
  std::string text = fmt::format("{}\n  {}\n", path, option.help);
  Section storage;
  const Section* below = section_below(field, storage);
  if (!std::holds_alternative<Section>(field.value)) {
    text += fmt::format("  value    {}\n  default  {}\n", expectation_with_unit(field),
                        default_text(field));
  }
  if (!option.flag.empty()) text += fmt::format("  Megatron {}\n", option.flag);
  if (below == nullptr) return text;
  text += "\n";
  for (const Field& inner : below->fields) {
    text += fmt::format("  {:<24} {}\n", inner.option.key, inner.option.help);
  }
  return text;
}

std::string escaped_cell(std::string text) {
  for (size_t i = 0; (i = text.find('|', i)) != std::string::npos; i += 2) text.insert(i, 1, '\\');
  return text;
}

void append_row(const Field& field, const std::string& path, std::string& page) {
  const Option& option = field.option;
  const std::string default_value = default_text(field);
  page += fmt::format("| `{}` | {} | {} | {} | {} |\n", path,
                      escaped_cell(expectation_with_unit(field)), escaped_cell(default_value),
                      option.flag.empty() ? "" : fmt::format("`{}`", option.flag),
                      escaped_cell(std::string(option.help)));
}

constexpr std::string_view kTableHead =
    "\n| key | value | default | Megatron flag | meaning |\n|---|---|---|---|---|\n";

// A row for each option of a section, those of sections inside it among them.
void append_rows(const Section& section, const std::string& path, std::string& page) {
  for (const Field& inner : section.fields) {
    const std::string inner_path = path + "." + std::string(inner.option.key);
    if (const auto* below = std::get_if<Section>(&inner.value)) {
      append_rows(*below, inner_path, page);
      continue;
    }
    append_row(inner, inner_path, page);
    const auto* list = std::get_if<List>(&inner.value);
    if (list == nullptr) continue;
    for (const Field& part : list->sample().fields) {
      append_row(part, inner_path + "[]." + std::string(part.option.key), page);
    }
  }
}

void append_section(const Field& field, std::string& page) {
  const std::string path(field.option.key);
  page += fmt::format("\n## {}\n\n{}\n{}", path, field.option.help, kTableHead);
  append_rows(std::get<Section>(field.value), path, page);
}

constexpr std::string_view kIntroduction =
    R"(<!-- Made by `qianli config docs`; change qianli/config/options/ instead. -->
# Configuration

A run is described by one YAML file of at most 1 MB; `key=value` words after it on the command line
override it, the last one wins:

```sh
qianli pretrain first.yaml optim.lr=3e-4 optim.betas=[0.9,0.95] model=llama-tiny
```

`qianli config show FILE [key=value …]` prints the resolved values, `qianli config explain KEY` this
page's entry for one key, `qianli config schema` a JSON schema for editors. Unknown keys, wrong types and
values out of range are errors that name file, line and key. Numbers are written bare, without quotes.
`null` and, where it cannot be a value of its own, `auto` stand for an absent value. An override of
`model` with a name drops the inline switches of the file; an override of a section with a map sets the
keys of that map. Anchors, aliases, tags and repeated keys are refused. Relative paths start at the
working directory.
)";

}  // namespace

std::string explain(const std::string& key) {
  const Section& root = defaults();
  if (key.empty()) {
    std::string text;
    for (const Field& field : root.fields) {
      text += fmt::format("{:<12} {}\n", field.option.key, field.option.help);
    }
    return text;
  }
  const auto field = find_field(root, key);
  if (!field) {
    throw ConfigError("config",
                      fmt::format("expected a known option, got '{}'{}", key.substr(0, 100),
                                  suggest_path(root, key)),
                      "`qianli config explain` lists the sections");
  }
  return explain_field(*field, key);
}

std::string explain_json(const std::string& key) {
  explain(key);  // refuses unknown keys
  OrderedJson options = OrderedJson::array();
  for (const auto& path : all_paths(defaults())) {
    if (!key.empty() && path != key && !path.starts_with(key + ".")) continue;
    const Field field = *find_field(defaults(), path);
    OrderedJson entry{{"key", path}, {"help", field.option.help}, {"value", expectation(field)}};
    if (!std::holds_alternative<Section>(field.value))
      entry["default"] = value_to_json(field.value);
    if (!field.option.absent.empty()) entry["absent"] = field.option.absent;
    if (!field.option.unit.empty()) entry["unit"] = field.option.unit;
    if (!field.option.flag.empty()) entry["megatron_flag"] = field.option.flag;
    options.push_back(std::move(entry));
  }
  return options.dump(2);
}

std::string markdown() {
  std::string page(kIntroduction);
  page += kTableHead;
  for (const Field& field : defaults().fields) {
    if (!std::holds_alternative<Section>(field.value)) {
      append_row(field, std::string(field.option.key), page);
    }
  }
  for (const Field& field : defaults().fields) {
    if (std::holds_alternative<Section>(field.value)) append_section(field, page);
  }
  return page;
}

}  // namespace qianli::config
