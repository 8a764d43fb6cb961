#include "qianli/config/field.h"

#include <type_traits>

#include "qianli/base/strings.h"
#include "qianli/config/options.h"

namespace qianli::config {
namespace {

template <class T>
Section section_of(T& section);

// The visitor of fields(): turns each typed field into a Field.
struct Collector {
  std::vector<Field>& fields;

  template <class T>
  void operator()(T& value, Option option) {
    fields.push_back({std::move(option), make(value)});
  }

  template <class T>
  static Value make(T& value) {
    if constexpr (std::is_constructible_v<Value, T*>) {
      return &value;
    } else {
      return section_of(value);
    }
  }

  template <class T>
  static Value make(std::vector<T>& values) {
    List list;
    list.clear = [&values] { values.clear(); };
    list.append = [&values] { return section_of(values.emplace_back()); };
    list.items = [&values] {
      std::vector<Section> items;
      for (T& value : values) items.push_back(section_of(value));
      return items;
    };
    list.sample = [] {
      static T sample;
      return section_of(sample);
    };
    return list;
  }
};

template <class T>
Section section_of(T& section) {
  Section result;
  if constexpr (requires { T::kShorthand; }) result.shorthand = T::kShorthand;
  result.reset = [&section] { section = T{}; };
  Collector collector{result.fields};
  section.fields(collector);
  return result;
}

std::string_view leaf_of(std::string_view path) { return path.substr(path.rfind('.') + 1); }

void append_paths(const Section& section, const std::string& prefix,
                  std::vector<std::string>& paths) {
  for (const Field& field : section.fields) {
    const std::string path = prefix + std::string(field.option.key);
    paths.push_back(path);
    if (const auto* inner = std::get_if<Section>(&field.value)) {
      append_paths(*inner, path + ".", paths);
    } else if (const auto* list = std::get_if<List>(&field.value)) {
      append_paths(list->sample(), path + ".", paths);
    }
  }
}

}  // namespace

Section fields_of(Config& config) { return section_of(config); }
Section fields_of(ModelConfig& model) { return section_of(model); }
Section fields_of(InstructionConfig& instruction) { return section_of(instruction); }

std::optional<Field> find_field(const Section& root, std::string_view path) {
  const size_t dot = path.find('.');
  for (const Field& field : root.fields) {
    if (field.option.key != path.substr(0, dot)) continue;
    if (dot == std::string_view::npos) return field;
    const std::string_view rest = path.substr(dot + 1);
    if (const auto* inner = std::get_if<Section>(&field.value)) return find_field(*inner, rest);
    if (const auto* list = std::get_if<List>(&field.value)) return find_field(list->sample(), rest);
    return std::nullopt;
  }
  return std::nullopt;
}

std::vector<std::string> all_paths(const Section& root) {
  std::vector<std::string> paths;
  append_paths(root, "", paths);
  return paths;
}

std::string suggest_path(const Section& root, std::string_view path) {
  const auto paths = all_paths(root);
  const std::string_view leaf = leaf_of(path);
  const std::string parent(path.substr(0, path.size() - leaf.size()));
  std::vector<std::string> siblings;
  for (const auto& known : paths) {
    if (leaf_of(known) == leaf) return " (did you mean '" + known + "'?)";
    if (known == parent + std::string(leaf_of(known))) siblings.emplace_back(leaf_of(known));
  }
  if (const auto near = nearest_name(leaf, siblings)) {
    return " (did you mean '" + parent + *near + "'?)";
  }
  return suggestion(path, paths);
}

}  // namespace qianli::config
