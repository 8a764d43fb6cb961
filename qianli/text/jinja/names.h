// The names in a tree, and how a block meets one. Internal to resolve.cpp.
#pragma once

#include <functional>
#include <string>

#include "qianli/text/jinja/ast.h"

namespace qianli::text::jinja {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

void each_name(Expression& expression, const std::function<void(Name&)>& visit);
// `stored` is false for the namespace in namespace.attribute.
void each_name(Target& target, const std::function<void(Name&, bool stored)>& visit);

// How a name is met first in a block and all blocks within: tells whether a loop needs `loop` and a
// macro `caller`, `kwargs` or `varargs`.
class FirstUse {
 public:
  explicit FirstUse(std::string name) : name_(std::move(name)) {}
  bool is_read(Block& block);
  bool is_stored_anywhere(Block& block);

 private:
  enum class Use { kNone, kRead, kStored };

  void meet(const Name& name, bool stored);
  void walk(const ExpressionPtr& expression);
  void walk(Target& target);
  void walk(Macro& macro);
  void walk(Block& block);

  std::string name_;
  Use first_ = Use::kNone;
  bool stored_ = false;
};

}  // namespace qianli::text::jinja
