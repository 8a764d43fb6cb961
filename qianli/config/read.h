// Reading YAML into fields: types, ranges, unknown keys.
#pragma once

#include <map>
#include <string>

#include "qianli/config/field.h"
#include "qianli/config/yaml.h"

namespace qianli::config {

// Where each key got its value: "first.yaml:12" or "override 'optim.lr=1'".
using Places = std::map<std::string, std::string, std::less<>>;

class Reader {
 public:
  // `root` is what unknown keys are compared with; `places` is filled.
  Reader(const Section& root, Places& places) : root_(root), places_(places) {}

  // A file: lines of `source`.
  void read_file_section(Section& section, const YamlNode& node, const std::string& source);
  // One "key=value".
  void read_override(const std::string& text);

 private:
  void read(const Field& field, const YamlNode& node, const std::string& path);
  void read_section(const Section& section, const YamlNode& node, const std::string& prefix);
  void read_list(const List& list, const YamlNode& node, const std::string& path);
  void read_item(const Section& item, const YamlNode& node, const std::string& path);
  void check_list_parent(const std::string& key) const;
  [[noreturn]] void wrong(const Field& field, const std::string& path, const YamlNode& node) const;
  std::string place(int line) const;

  const Section& root_;
  Places& places_;
  std::string source_;
  bool is_file_ = false;
};

// "a whole number of at least 1", "one of auto, cpu, cuda": what the value of a field must be.
std::string expectation(const Field& field);

}  // namespace qianli::config
