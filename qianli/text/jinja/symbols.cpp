#include "qianli/text/jinja/symbols.h"

namespace qianli::text::jinja {

int FunctionVariables::slot(const std::string& identifier) {
  const auto [place, added] = slots_.try_emplace(identifier, frame_.num_slots);
  if (added) ++frame_.num_slots;
  return place->second;
}

Symbols::Symbols(Symbols* parent, FunctionVariables& function, std::string prefix)
    : parent_(parent),
      function_(&function),
      prefix_(std::move(prefix)),
      level_(parent ? parent->level_ + 1 : 0) {}

void Symbols::define(const std::string& name, Start start) {
  const std::string identifier = prefix_ + std::to_string(level_) + "." + name;
  references_[name] = identifier;
  starts_[identifier] = std::move(start);
}

std::optional<Reference> Symbols::find(const std::string& name) const {
  for (const Symbols* symbols = this; symbols; symbols = symbols->parent_) {
    const auto found = symbols->references_.find(name);
    if (found != symbols->references_.end()) return Reference{found->second, symbols->function_};
  }
  return std::nullopt;
}

void Symbols::load(const std::string& name) {
  if (!find(name)) define(name, {Start::From::kContext, name, {}});
}

void Symbols::store(const std::string& name) {
  stores_.insert(name);
  if (references_.count(name)) return;
  auto outer = parent_ ? parent_->find(name) : std::nullopt;
  if (outer)
    define(name, {Start::From::kAlias, name, std::move(outer)});
  else
    define(name, {Start::From::kNothing, name, {}});
}

void Symbols::declare(const std::string& name) {
  stores_.insert(name);
  define(name, {Start::From::kParameter, name, {}});
}

void Symbols::merge(std::initializer_list<const Symbols*> branches) {
  std::set<std::string> stored;
  for (const Symbols* branch : branches)
    stored.insert(branch->stores_.begin(), branch->stores_.end());
  for (const std::string& name : stores_) stored.erase(name);
  for (const Symbols* branch : branches) {
    for (const auto& [name, identifier] : branch->references_) references_[name] = identifier;
    for (const auto& [identifier, start] : branch->starts_) starts_[identifier] = start;
    stores_.insert(branch->stores_.begin(), branch->stores_.end());
  }
  // Set in one branch at least: in the others the name keeps what it meant before.
  for (const std::string& name : stored) {
    const std::string identifier = find(name)->identifier;
    auto outer = parent_ ? parent_->find(name) : std::nullopt;
    if (outer)
      starts_[identifier] = {Start::From::kAlias, name, std::move(outer)};
    else
      starts_[identifier] = {Start::From::kContext, name, {}};
  }
}

Place Symbols::place(const Reference& reference) const {
  int hops = 0;
  for (const FunctionVariables* f = function_; f != reference.function; f = f->parent()) ++hops;
  return {hops, reference.function->slot(reference.identifier)};
}

Place Symbols::place(const std::string& name) const { return place(*find(name)); }

Scope Symbols::scope() const {
  Scope scope;
  for (const auto& [identifier, start] : starts_) {
    const int slot = function_->slot(identifier);
    scope.slots.push_back(slot);
    switch (start.from) {
      case Start::From::kParameter:
        break;
      case Start::From::kContext:
        scope.loads.push_back({slot, Load::From::kContext, start.name, {}});
        break;
      case Start::From::kNothing:
        scope.loads.push_back({slot, Load::From::kNothing, {}, {}});
        break;
      case Start::From::kAlias:
        scope.loads.push_back({slot, Load::From::kPlace, {}, place(*start.alias)});
        break;
    }
  }
  return scope;
}

}  // namespace qianli::text::jinja
