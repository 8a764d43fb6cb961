// The names of one scope and where their values come from: the rules of jinja2's idtracking, by
// which a scope is looked through as a whole before it runs. Internal to resolve.cpp.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

#include "qianli/text/jinja/ast.h"

namespace qianli::text::jinja {

// Variables of a function, by identifiers that are unique within it.
class FunctionVariables {
 public:
  FunctionVariables(FunctionVariables* parent, FunctionFrame& frame)
      : parent_(parent), frame_(frame) {
    if (parent) parent->frame_.captured = true;
  }
  int slot(const std::string& identifier);
  const FunctionVariables* parent() const { return parent_; }

 private:
  FunctionVariables* parent_;
  FunctionFrame& frame_;
  std::map<std::string, int> slots_;
};

struct Reference {
  std::string identifier;
  FunctionVariables* function;
};

class Symbols {
 public:
  // `prefix` keeps the variables of a loop's condition apart from those of its body.
  Symbols(Symbols* parent, FunctionVariables& function, std::string prefix = {});

  void load(const std::string& name);
  void store(const std::string& name);
  void declare(const std::string& name);  // a parameter: whoever enters the scope sets it
  // What the branches of an if did to copies of this.
  void merge(std::initializer_list<const Symbols*> branches);

  std::optional<Reference> find(const std::string& name) const;
  // Where this scope's function finds a variable.
  Place place(const Reference& reference) const;
  Place place(const std::string& name) const;
  Scope scope() const;
  FunctionVariables& function() const { return *function_; }
  size_t size() const { return starts_.size() + stores_.size(); }

 private:
  struct Start {
    enum class From { kParameter, kContext, kAlias, kNothing } from;
    std::string name;
    std::optional<Reference> alias;
  };
  void define(const std::string& name, Start start);

  Symbols* parent_;
  FunctionVariables* function_;
  std::string prefix_;
  int level_;
  std::map<std::string, std::string> references_;  // name -> identifier
  std::map<std::string, Start> starts_;            // identifier -> how it starts
  std::set<std::string> stores_;
};

}  // namespace qianli::text::jinja
