// Attributes of a namespace in the making, and the parts of megatron_arguments that make them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "qianli/convert/megatron/layout.h"
#include "qianli/formats/pickle.h"

namespace qianli::convert {

class Attributes {
 public:
  using Value = formats::Value;

  void add(const char* name, int64_t value) { add(name, Value::integer(value)); }
  void add(const char* name, double value) { add(name, Value::real(value)); }
  void add(const char* name, bool value) { add(name, Value::boolean(value)); }
  void add(const char* name, const char* value) { add(name, Value::text(value)); }
  void add(const char* name, Value value) {
    entries_.emplace_back(Value::text(name), std::move(value));
  }
  void add(const char* name, const std::vector<int64_t>& values) {
    formats::Values list;
    for (const int64_t value : values) list.push_back(Value::integer(value));
    add(name, list.empty() ? Value() : Value::list(std::move(list)));
  }
  void add(const char* name, const std::vector<double>& values) {
    formats::Values list;
    for (const double value : values) list.push_back(Value::real(value));
    add(name, Value::list(std::move(list)));
  }
  Value as_namespace() && {
    return Value::object({.callable = {"argparse", "Namespace"},
                          .arguments = Value::tuple({}),
                          .state = Value::dict(std::move(entries_))});
  }

 private:
  formats::Entries entries_;
};

// Whether Megatron-LM itself is to read the arguments: then its own words are taken where it has
// some, and else those of MindSpeed-LLM, which it passes over.
inline bool is_plain(const MegatronLayout& layout) {
  return layout.names != MegatronNames::kMindSpeed;
}

void add_experts(const model::ModelSpec& spec, bool plain, Attributes& attributes);
void add_positions(const model::ModelSpec& spec, bool plain, Attributes& attributes);

}  // namespace qianli::convert
