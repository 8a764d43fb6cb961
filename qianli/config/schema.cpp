// JSON Schema of the configuration: draft 2020-12, for editors that complete and check YAML.
#include <cmath>
#include <type_traits>

#include "qianli/config/config.h"
#include "qianli/config/field.h"
#include "qianli/config/write.h"

namespace qianli::config {
namespace {

OrderedJson section_schema(const Section& section);

// Whole bounds without a decimal point.
OrderedJson bound(double value) {
  const bool whole = value == std::floor(value) && std::abs(value) < 1e15;
  return whole ? OrderedJson(static_cast<int64_t>(value)) : OrderedJson(value);
}

void add_range(const Option& option, OrderedJson& schema) {
  if (std::isfinite(option.min)) {
    schema[option.open_min ? "exclusiveMinimum" : "minimum"] = bound(option.min);
  }
  if (std::isfinite(option.max)) {
    schema[option.open_max ? "exclusiveMaximum" : "maximum"] = bound(option.max);
  }
}

OrderedJson scalar_schema(const char* type, const Option& option) {
  OrderedJson schema{{"type", type}};
  if (option.choices.empty()) {
    add_range(option, schema);
  } else {
    schema["enum"] = option.choices;
  }
  return schema;
}

// `auto` and null stand for absence, as in the reader.
OrderedJson optional_schema(OrderedJson inner, bool allows_auto) {
  OrderedJson forms = OrderedJson::array({std::move(inner), {{"type", "null"}}});
  if (allows_auto) forms.push_back({{"const", "auto"}});
  return {{"anyOf", std::move(forms)}};
}

OrderedJson list_schema(const List& list) {
  const Section sample = list.sample();
  const OrderedJson item = section_schema(sample);
  OrderedJson many{{"type", "array"}, {"items", item}};
  if (!sample.shorthand) return many;
  return {{"anyOf", OrderedJson::array({std::move(many), item})}};
}

OrderedJson value_schema(const Field& field) {
  const Option& option = field.option;
  const auto schema = [&](const auto& value) -> OrderedJson {
    using T = std::remove_pointer_t<std::decay_t<decltype(value)>>;
    if constexpr (std::is_same_v<T, Section>) {
      return section_schema(value);
    } else if constexpr (std::is_same_v<T, List>) {
      return list_schema(value);
    } else if constexpr (std::is_same_v<T, std::array<double, 2>>) {
      return {{"type", "array"},
              {"items", scalar_schema("number", option)},
              {"minItems", 2},
              {"maxItems", 2}};
    } else if constexpr (std::is_same_v<T, bool>) {
      return scalar_schema("boolean", option);
    } else if constexpr (std::is_same_v<T, int64_t>) {
      return scalar_schema("integer", option);
    } else if constexpr (std::is_same_v<T, double>) {
      return scalar_schema("number", option);
    } else if constexpr (std::is_same_v<T, std::string>) {
      return scalar_schema("string", option);
    } else {
      using Inner = typename T::value_type;
      Inner inner{};
      const bool free_text = std::is_same_v<Inner, std::string> && option.choices.empty();
      return optional_schema(value_schema({option, &inner}), !free_text);
    }
  };
  return std::visit(schema, field.value);
}

// What an editor shows beside the key: help, default, flag.
OrderedJson field_schema(const Field& field) {
  OrderedJson schema{{"description", field.option.help}};
  const OrderedJson value = value_to_json(field.value);
  const bool unset = value.is_null() || value == "" || value.is_structured();
  if (!unset) schema["default"] = value;
  schema.update(value_schema(field));
  return schema;
}

OrderedJson section_schema(const Section& section) {
  OrderedJson properties = OrderedJson::object();
  for (const Field& field : section.fields) {
    properties[std::string(field.option.key)] = field_schema(field);
  }
  OrderedJson map{
      {"type", "object"}, {"properties", std::move(properties)}, {"additionalProperties", false}};
  if (!section.shorthand) return map;
  return {{"anyOf", OrderedJson::array({{{"type", "string"}}, std::move(map)})}};
}

}  // namespace

std::string json_schema() {
  Config config;
  OrderedJson schema{{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                     {"title", "Qianli configuration"}};
  schema.update(section_schema(fields_of(config)));
  return schema.dump(2) + "\n";
}

}  // namespace qianli::config
