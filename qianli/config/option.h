// What an option says of itself, next to the field that holds it. Everything that must know the
// options (reading, help, docs, schema) is derived from these declarations.
#pragma once

#include <limits>
#include <string_view>
#include <vector>

namespace qianli::config {

struct Option {
  std::string_view key;
  std::string_view help;       // one or two sentences in user terms
  std::string_view unit = {};  // "tokens", "steps"; empty: a plain number or not a number
  std::string_view flag = {};  // Megatron-LM or MindSpeed-LLM flag of the same meaning, with dashes
  // What holds when the field is absent or empty; empty: absence needs no word.
  std::string_view absent = {};
  std::vector<std::string_view> choices = {};  // allowed words; empty: any
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool open_min = false;       // min itself is refused
  bool open_max = false;       // max itself is refused
  std::string_view hint = {};  // said when the value is out of range or not among the choices
};

}  // namespace qianli::config
