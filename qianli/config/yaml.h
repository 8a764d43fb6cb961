// YAML from strangers, as a tree of plain nodes with line numbers. Only what a configuration needs:
// one document of maps, lists and scalars. Refused: anchors and aliases (they can grow without
// bound), tags, keys that are not scalars, the same key twice, deep nesting, very many nodes.
#pragma once

#include <string>
#include <vector>

namespace qianli::config {

struct YamlLimits {
  size_t bytes = 1 << 20;
  int depth = 16;
  size_t nodes = 100'000;
};

struct YamlEntry;

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  std::string text;     // of a scalar
  bool quoted = false;  // of a scalar: written in quotes or as a block, so text for certain
  int line = 0;         // counted from 1
  std::vector<YamlEntry> entries;
};

struct YamlEntry {
  std::string key;  // of a map; empty in lists
  int line = 0;     // of the key
  YamlNode value;
};

// `source` names the text in errors ("first.yaml"). An empty text is a null node.
YamlNode parse_yaml(const std::string& text, const std::string& source, YamlLimits limits = {});

}  // namespace qianli::config
