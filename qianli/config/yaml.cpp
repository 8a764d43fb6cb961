#include "qianli/config/yaml.h"

#include <fmt/core.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>

#include "qianli/base/error.h"

namespace qianli::config {
namespace {

// Longest key worth keeping; longer ones are no option anyway.
constexpr size_t kKeyBytes = 1000;

[[noreturn]] void refuse(const std::string& source, int line, const std::string& problem,
                         const std::string& hint = {}) {
  throw ConfigError("config", fmt::format("{}:{}: {}", source, line, problem), hint);
}

// Builds the tree from the parser's events and stops at the first thing that is not allowed.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const std::string& source, YamlLimits limits) : source_(source), limits_(limits) {}

  YamlNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check(mark, "?", anchor);
    add(YamlNode{.line = line(mark)});
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse_anchor(line(mark)); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    check(mark, tag, anchor);
    add({.kind = YamlNode::Kind::kScalar, .text = text, .quoted = tag == "!", .line = line(mark)});
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kList);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Level {
    YamlNode node;
    bool has_key = false;  // the last entry has its key and waits for its value
  };

  static int line(const YAML::Mark& mark) { return mark.line + 1; }

  [[noreturn]] void refuse_anchor(int line) const {
    refuse(source_, line, "expected plain values, got an anchor or alias",
           "write the value out where it is used; quote text that begins with & or *");
  }

  void check(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) refuse_anchor(line(mark));
    if (!tag.empty() && tag != "?" && tag != "!") {
      refuse(source_, line(mark), fmt::format("expected plain values, got the tag {}", tag),
             "remove the tag; quote text that begins with !");
    }
    if (++nodes_ > limits_.nodes) {
      refuse(source_, line(mark), fmt::format("expected at most {} values", limits_.nodes));
    }
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            YamlNode::Kind kind) {
    check(mark, tag, anchor);
    if (waits_for_key()) {
      refuse(source_, line(mark), "expected a plain key, got a list or map as key",
             "look for a bracket that is not closed");
    }
    if (static_cast<int>(stack_.size()) >= limits_.depth) {
      refuse(source_, line(mark), fmt::format("expected at most {} levels", limits_.depth));
    }
    stack_.push_back({.node = {.kind = kind, .line = line(mark)}});
  }

  void close() {
    YamlNode node = std::move(stack_.back().node);
    stack_.pop_back();
    add(std::move(node));
  }

  bool waits_for_key() const {
    return !stack_.empty() && stack_.back().node.kind == YamlNode::Kind::kMap &&
           !stack_.back().has_key;
  }

  void add(YamlNode node) {
    if (stack_.empty()) {
      root_ = std::move(node);
    } else if (waits_for_key()) {
      add_key(node);
    } else {
      Level& level = stack_.back();
      if (!level.has_key) level.node.entries.push_back({.line = node.line});
      level.node.entries.back().value = std::move(node);
      level.has_key = false;
    }
  }

  void add_key(const YamlNode& key) {
    if (key.kind != YamlNode::Kind::kScalar || key.text.empty() || key.text.size() > kKeyBytes) {
      refuse(source_, key.line, "expected a key, got none or a very long one");
    }
    auto& entries = stack_.back().node.entries;
    if (static_cast<int>(entries.size()) >= kMapEntries) {
      refuse(source_, key.line, fmt::format("expected at most {} keys in a map", kMapEntries));
    }
    const auto same = std::find_if(entries.begin(), entries.end(),
                                   [&](const YamlEntry& entry) { return entry.key == key.text; });
    if (same != entries.end()) {
      refuse(source_, key.line,
             fmt::format("expected '{}' once, got it again after line {}", key.text, same->line));
    }
    entries.push_back({.key = key.text, .line = key.line});
    stack_.back().has_key = true;
  }

  static constexpr int kMapEntries = 1000;  // keeps the search for equal keys cheap
  const std::string& source_;
  YamlLimits limits_;
  size_t nodes_ = 0;
  std::vector<Level> stack_;
  YamlNode root_;
};

}  // namespace

YamlNode parse_yaml(const std::string& text, const std::string& source, YamlLimits limits) {
  if (text.size() > limits.bytes) {
    throw ConfigError("config", fmt::format("{}: expected at most {} bytes, got {}", source,
                                            limits.bytes, text.size()));
  }
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    TreeBuilder builder(source, limits);
    if (!parser.HandleNextDocument(builder)) return {};
    YamlNode root = builder.take();
    TreeBuilder second(source, limits);
    if (parser.HandleNextDocument(second)) {
      throw ConfigError("config", fmt::format("{}: expected one YAML document, got more", source),
                        "remove the lines that hold only ---");
    }
    return root;
  } catch (const YAML::Exception& error) {
    refuse(source, error.mark.line + 1, "expected YAML, got a syntax error: " + error.msg);
  }
}

}  // namespace qianli::config
