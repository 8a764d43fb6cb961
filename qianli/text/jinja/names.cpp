#include "qianli/text/jinja/names.h"

namespace qianli::text::jinja {

void each_name(Expression& expression, const std::function<void(Name&)>& visit) {
  if (auto* name = std::get_if<Name>(&expression.node)) visit(*name);
  for_each_child(expression, [&](Expression& child) { each_name(child, visit); });
}

void each_name(Target& target, const std::function<void(Name&, bool stored)>& visit) {
  std::visit(Overloaded{[&](Name& name) { visit(name, true); },
                        [&](Target::Member& member) { visit(member.space, false); },
                        [&](std::vector<Target>& targets) {
                          for (Target& inner : targets) each_name(inner, visit);
                        }},
             target.node);
}

bool FirstUse::is_read(Block& block) {
  walk(block);
  return first_ == Use::kRead;
}

bool FirstUse::is_stored_anywhere(Block& block) {
  walk(block);
  return stored_;
}

void FirstUse::meet(const Name& name, bool stored) {
  if (name.name != name_) return;
  if (first_ == Use::kNone) first_ = stored ? Use::kStored : Use::kRead;
  stored_ |= stored;
}

void FirstUse::walk(const ExpressionPtr& expression) {
  if (expression) each_name(*expression, [&](Name& name) { meet(name, false); });
}

void FirstUse::walk(Target& target) {
  each_name(target, [&](Name& name, bool stored) { meet(name, stored); });
}

void FirstUse::walk(Macro& macro) {
  for (Parameter& parameter : macro.parameters) {
    if (first_ == Use::kNone && parameter.name.name == name_) first_ = Use::kStored;
  }
  for (Parameter& parameter : macro.parameters) walk(parameter.otherwise);
  walk(macro.body);
}

void FirstUse::walk(Block& block) {
  for (Statement& statement : block) {
    std::visit(
        Overloaded{
            [&](Text&) {}, [&](LoopControl&) {}, [&](Print& node) { walk(node.value); },
            [&](If& node) {
              for (auto& [condition, body] : node.branches) walk(condition), walk(body);
              walk(node.otherwise);
            },
            [&](For& node) {
              walk(node.target), walk(node.iterable), walk(node.body), walk(node.otherwise);
              walk(node.condition);
            },
            [&](Assign& node) { walk(node.target), walk(node.value); },
            [&](AssignBlock& node) { walk(node.target), walk(node.filter), walk(node.body); },
            [&](MacroDefinition& node) { walk(*node.macro); },
            [&](CallBlock& node) { walk(node.call), walk(*node.body); },
            [&](Generation& node) { walk(*node.body); },
            [&](FilterBlock& node) { walk(node.body), walk(node.filter); },
            [&](With& node) {
              for (auto& [target, value] : node.assignments) walk(target), walk(value);
              walk(node.body);
            }},
        statement.node);
  }
}

}  // namespace qianli::text::jinja
