// Two resolved configurations, key by key.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace qianli::runs {

struct SettingDifference {
  std::string key;                  // "optim.lr"
  std::optional<std::string> a, b;  // as they stand in the files; absent: the key is not there
  bool layout = false;              // parallel.*: how the work is divided, which changes no result
};

// Both are YAML texts; `source` names them in errors. Keys are in the order of A, those that only B
// has at the end. Numbers are compared by value; run.dir, where a run lies, is no difference.
// Throws ConfigError for what is no YAML of a configuration.
std::vector<SettingDifference> compare_configs(const std::string& a, const std::string& source_a,
                                               const std::string& b, const std::string& source_b);

}  // namespace qianli::runs
