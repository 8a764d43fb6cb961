// A configuration as a tree of fields without templates: what an option says and a pointer to its
// value. Everything that walks options (reading, writing, help) works on this.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "qianli/config/config.h"

namespace qianli::config {

struct Field;

struct Section {
  std::vector<Field> fields;
  bool shorthand = false;       // a scalar stands for the first field
  std::function<void()> reset;  // back to defaults
};

// A list of sections of one kind. A single item that is not a list stands for a list of it when the
// kind has a shorthand.
struct List {
  std::function<void()> clear;
  std::function<Section()> append;  // valid until the next append
  std::function<std::vector<Section>()> items;
  std::function<Section()> sample;  // an item with defaults, for descriptions
};

using Value = std::variant<bool*, int64_t*, double*, std::string*, std::optional<bool>*,
                           std::optional<int64_t>*, std::optional<double>*,
                           std::optional<std::string>*, std::array<double, 2>*, Section, List>;

struct Field {
  Option option;
  Value value;
};

// The fields of `config`; pointers into it.
Section fields_of(Config& config);
Section fields_of(ModelConfig& model);
Section fields_of(InstructionConfig& instruction);

// "optim.lr" → that field; parts of list items ("optim.groups.match") are those of the sample item.
std::optional<Field> find_field(const Section& root, std::string_view path);
// Every path, sections included, in order of declaration.
std::vector<std::string> all_paths(const Section& root);
// " (did you mean 'optim.lr'?)" or "": an option of that name elsewhere, else the nearest spelling.
std::string suggest_path(const Section& root, std::string_view path);

}  // namespace qianli::config
