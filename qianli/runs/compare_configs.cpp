#include "qianli/runs/compare_configs.h"

#include <charconv>
#include <unordered_map>

#include "qianli/config/yaml.h"

namespace qianli::runs {
namespace {

using config::YamlNode;

// A key and what it holds: text, or a list of text.
struct Setting {
  std::string key;
  const YamlNode* value;
};

bool is_leaf(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kList) return node.kind != YamlNode::Kind::kMap;
  for (const auto& entry : node.entries) {
    if (!is_leaf(entry.value)) return false;
  }
  return true;
}

// Maps become "section.key", lists of maps "section.key.0.name".
void flatten(const YamlNode& node, const std::string& path, std::vector<Setting>& settings) {
  if (is_leaf(node)) {
    if (!path.empty()) settings.push_back({path, &node});
    return;
  }
  size_t number = 0;
  for (const auto& entry : node.entries) {
    const std::string key =
        node.kind == YamlNode::Kind::kMap ? entry.key : std::to_string(number++);
    flatten(entry.value, path.empty() ? key : path + "." + key, settings);
  }
}

std::string text_of(const YamlNode& node) {
  if (node.kind == YamlNode::Kind::kNull) return "null";
  if (node.kind == YamlNode::Kind::kScalar) return node.text;
  std::string text;
  for (const auto& entry : node.entries) text += (text.empty() ? "" : ", ") + text_of(entry.value);
  return "[" + text + "]";
}

std::optional<double> number_of(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar || node.quoted) return std::nullopt;
  const std::string& text = node.text;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool same(const YamlNode& a, const YamlNode& b) {
  const auto x = number_of(a), y = number_of(b);
  if (x && y) return *x == *y;
  if (a.kind != b.kind || a.text != b.text || a.entries.size() != b.entries.size()) return false;
  for (size_t i = 0; i < a.entries.size(); ++i) {
    if (!same(a.entries[i].value, b.entries[i].value)) return false;
  }
  return true;
}

using Places = std::unordered_map<std::string, const YamlNode*>;

Places places_of(const std::vector<Setting>& settings) {
  Places places;
  for (const Setting& setting : settings) places.emplace(setting.key, setting.value);
  return places;
}

SettingDifference difference(const std::string& key, const YamlNode* a, const YamlNode* b) {
  SettingDifference found{.key = key, .layout = key.starts_with("parallel.")};
  if (a != nullptr) found.a = text_of(*a);
  if (b != nullptr) found.b = text_of(*b);
  return found;
}

}  // namespace

std::vector<SettingDifference> compare_configs(const std::string& a, const std::string& source_a,
                                               const std::string& b, const std::string& source_b) {
  const YamlNode tree_a = config::parse_yaml(a, source_a), tree_b = config::parse_yaml(b, source_b);
  std::vector<Setting> of_a, of_b;
  flatten(tree_a, "", of_a);
  flatten(tree_b, "", of_b);
  const Places in_a = places_of(of_a), in_b = places_of(of_b);
  std::vector<SettingDifference> found;
  const auto compare = [&](const std::string& key, const YamlNode* x, const YamlNode* y) {
    if (key != "run.dir" && (!x || !y || !same(*x, *y))) found.push_back(difference(key, x, y));
  };
  for (const Setting& setting : of_a) {
    const auto other = in_b.find(setting.key);
    compare(setting.key, setting.value, other == in_b.end() ? nullptr : other->second);
  }
  for (const Setting& setting : of_b) {
    if (!in_a.contains(setting.key)) compare(setting.key, nullptr, setting.value);
  }
  return found;
}

}  // namespace qianli::runs
