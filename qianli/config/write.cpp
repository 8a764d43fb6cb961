#include "qianli/config/write.h"

#include <fmt/core.h>

#include <cctype>
#include <cmath>
#include <type_traits>

namespace qianli::config {
namespace {

// True when YAML reads the text back as this very text, without quotes, in every context.
bool is_plain(const std::string& text) {
  if (text.empty() ||
      !(std::isalpha(static_cast<unsigned char>(text[0])) || text[0] == '/' ||
        (text[0] == '.' && text.size() > 1 && (text[1] == '/' || text[1] == '.')))) {
    return false;
  }
  for (const char c : text) {
    const bool safe =
        std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.' || c == '/';
    if (!safe) return false;
  }
  for (const char* word : {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}) {
    if (text.size() == std::string_view(word).size() &&
        std::equal(text.begin(), text.end(), word, [](char a, char b) {
          return std::tolower(static_cast<unsigned char>(a)) == b;
        })) {
      return false;
    }
  }
  return true;
}

// Shortest digits that read back the same; always with a point, which YAML 1.1 readers need to see
// a number in 1.0e-08.
std::string number_text(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find('.') != std::string::npos) return text;
  const size_t exponent = text.find('e');
  return exponent == std::string::npos ? text + ".0" : text.insert(exponent, ".0");
}

std::string flow(const OrderedJson& value) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    if (is_plain(text)) return text;
    return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  }
  if (value.is_number_float()) return number_text(value.get<double>());
  if (!value.is_structured()) return value.dump();
  std::string text;
  for (const auto& item : value.items()) {
    if (!text.empty()) text += ", ";
    if (value.is_object()) text += item.key() + ": ";
    text += flow(item.value());
  }
  return value.is_object() ? "{" + text + "}" : "[" + text + "]";
}

void append_block(const OrderedJson& object, int indent, std::string& yaml) {
  for (const auto& item : object.items()) {
    yaml.append(indent, ' ').append(item.key()).append(":");
    if (item.value().is_object()) {
      yaml += "\n";
      append_block(item.value(), indent + 2, yaml);
    } else {
      yaml.append(" ").append(flow(item.value())).append("\n");
    }
  }
}

}  // namespace

OrderedJson value_to_json(const Value& value) {
  const auto write = [](const auto& field) -> OrderedJson {
    using T = std::decay_t<decltype(field)>;
    if constexpr (std::is_same_v<T, Section>) {
      return section_to_json(field);
    } else if constexpr (std::is_same_v<T, List>) {
      OrderedJson items = OrderedJson::array();
      for (const Section& item : field.items()) items.push_back(section_to_json(item));
      return items;
    } else if constexpr (requires { field->has_value(); }) {
      return field->has_value() ? OrderedJson(**field) : OrderedJson(nullptr);
    } else {
      return *field;
    }
  };
  return std::visit(write, value);
}

OrderedJson section_to_json(const Section& section) {
  OrderedJson object = OrderedJson::object();
  for (const Field& field : section.fields) {
    OrderedJson value = value_to_json(field.value);
    const auto* text = std::get_if<std::string*>(&field.value);
    const bool unset = value.is_null() || (value.is_structured() && value.empty()) ||
                       (text != nullptr && (*text)->empty());
    if (!unset) object[std::string(field.option.key)] = std::move(value);
  }
  return object;
}

std::string json_to_yaml(const OrderedJson& object) {
  std::string yaml;
  append_block(object, 0, yaml);
  return yaml;
}

}  // namespace qianli::config
