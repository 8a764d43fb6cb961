// What is checked when a pickle is complete, so that everybody may walk its tree recursively.
#include <fmt/core.h>

#include <algorithm>
#include <unordered_set>

#include "qianli/formats/pickle_machine.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

// The i-th value that a node holds, or null behind the last.
const Value* held_by(const PickleNode& node, size_t i) {
  if (const auto* values = std::get_if<Values>(&node.content)) {
    return i < values->size() ? &(*values)[i] : nullptr;
  }
  const auto entry = [](const Entries& entries, size_t k) {
    return k % 2 == 0 ? &entries[k / 2].first : &entries[k / 2].second;
  };
  if (const auto* entries = std::get_if<Entries>(&node.content)) {
    return i < 2 * entries->size() ? entry(*entries, i) : nullptr;
  }
  const auto* object = std::get_if<Object>(&node.content);
  if (!object) return nullptr;
  if (i < 2) return i == 0 ? &object->arguments : &object->state;
  i -= 2;
  if (i < object->elements.size()) return &object->elements[i];
  i -= object->elements.size();
  return i < 2 * object->entries.size() ? entry(object->entries, i) : nullptr;
}

// Moves out of a node what it holds.
decltype(PickleNode::content) take_content(PickleNode& node) {
  auto content = std::move(node.content);
  node.content = std::string();
  return content;
}

}  // namespace

void PickleMachine::check(const Value& root) {
  // Shared containers make a tree larger than its pickle. Real ones share little; the bound keeps
  // whoever walks the tree proportional to the file.
  const uint64_t most = std::min(limits_.max_values, 16 * values_made_ + (uint64_t{1} << 16));
  constexpr int kOpen = -1;  // depth of a node whose tree is being walked
  struct Step {
    PickleNode* node;
    size_t next;
  };
  std::vector<Step> path;
  const auto enter = [&](const Value& value) {
    const Node* node = std::get_if<Node>(&value.content_);
    if (!node || (*node)->depth > 0) return;
    if ((*node)->depth == kOpen) refuse("a value contains itself");
    if (path.size() >= static_cast<size_t>(limits_.max_depth)) {
      refuse(fmt::format("more than {} containers in each other", limits_.max_depth));
    }
    (*node)->depth = kOpen;
    (*node)->size = 1;
    check_keys(**node);
    path.push_back({node->get(), 0});
  };
  const auto leave = [&](PickleNode& node) {
    int depth = 0;
    for (size_t i = 0; const Value* child = held_by(node, i); ++i) {
      const Node* held = std::get_if<Node>(&child->content_);
      depth = std::max(depth, held ? (*held)->depth : 0);
      node.size += held ? (*held)->size : 1;
      if (node.size > most) refuse("too many values");
    }
    node.depth = depth + 1;
    if (node.depth > limits_.max_depth) {
      refuse(fmt::format("more than {} containers in each other", limits_.max_depth));
    }
  };
  enter(root);
  while (!path.empty()) {
    Step& step = path.back();
    if (const Value* child = held_by(*step.node, step.next++)) {
      enter(*child);
    } else {
      leave(*step.node);
      path.pop_back();
    }
  }
}

void PickleMachine::check_keys(const PickleNode& node) const {
  const auto* entries = std::get_if<Entries>(&node.content);
  if (!entries) return;
  std::unordered_set<std::string_view> seen;
  for (const auto& [key, value] : *entries) {
    const std::string* text = key.as_text();
    if (text && !seen.insert(*text).second) {
      refuse(fmt::format("a dictionary has the key {} twice", shown_name(*text)));
    }
  }
}

void PickleMachine::drop_all(bool keep_checked) {
  stack_.clear();
  memo_.clear();
  // Every holder is alive while the others are emptied, so nothing is destroyed in a chain.
  std::vector<decltype(PickleNode::content)> contents;
  for (const Node& node : holders_) {
    if (keep_checked && node->depth > 0) continue;
    contents.push_back(take_content(*node));
  }
  contents.clear();
  holders_.clear();
}

PickleResult parse_pickle(std::span<const std::byte> bytes, const std::string& source,
                          FileRole role, PickleLimits limits) {
  return PickleMachine(bytes, source, role, limits).run();
}

}  // namespace qianli::formats
