// Hostile files: each is refused with a ConfigError, or read; nothing else may happen.
#include "qianli/config/yaml.h"

#include <gtest/gtest.h>

#include "qianli/config/config.h"
#include "tests/config/expect_error.h"

namespace qianli::config {
namespace {

using testing::expect_config_error;

std::string repeated(const std::string& text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

TEST(Yaml, keeps_lines_quotes_and_kinds) {
  const YamlNode root = parse_yaml("a: 1\nb:\n  - 'x'\n  - ~\n", "t");
  ASSERT_EQ(root.kind, YamlNode::Kind::kMap);
  ASSERT_EQ(root.entries.size(), 2u);
  EXPECT_EQ(root.entries[1].key, "b");
  EXPECT_EQ(root.entries[1].line, 2);
  const auto& items = root.entries[1].value.entries;
  ASSERT_EQ(items.size(), 2u);
  EXPECT_TRUE(items[0].value.quoted);
  EXPECT_EQ(items[0].value.line, 3);
  EXPECT_EQ(items[1].value.kind, YamlNode::Kind::kNull);
  EXPECT_EQ(parse_yaml("", "t").kind, YamlNode::Kind::kNull);
}

TEST(Yaml, refuses_hostile_files) {
  const std::pair<std::string, const char*> cases[] = {
      {"a: &x [1]\nb: *x", "t:1: expected plain values, got an anchor or alias"},
      {"a: &a [l, l]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]", "anchor or alias"},
      {"base: {lr: 1}\n<<: *base", "t:2: expected"},
      {"a: !!python/object:os.system x", "tag"},
      {"a: 1\nb: 2\na: 3", "t:3: expected 'a' once, got it again after line 1"},
      {"a: {x: 1, x: 2}", "expected 'x' once"},
      {"? [1, 2]\n: 3", "a list or map as key"},
      {"? {a: b}\n: 3", "a list or map as key"},
      {"? ''\n: 3", "expected a key"},
      {"~: 3", "expected a key"},
      {"a: 1\n---\na: 2", "one YAML document"},
      {"a: [1, 2", "t:"},
      {"a: 'open", "t:"},
      {"a:\n\t- b: c\n\t - d", "t:"},
      {"a: b: c", "t:1:"},
      {std::string(1 << 20, 'a') + "b", "expected at most 1048576 bytes"},
      {repeated("[", 10000), "t:1:"},
      {repeated("{a: ", 10000), "t:1:"},
      {repeated("- ", 10000) + "x", "expected at most 16 levels"},
      {"[" + repeated("1, ", 200000) + "1]", "expected at most 100000 values"},
      {repeated("?\n", 500), "t:"},
  };
  for (const auto& [yaml, words] : cases) {
    SCOPED_TRACE(yaml.substr(0, 60));
    expect_config_error([&yaml = yaml] { parse_yaml(yaml, "t"); }, words);
  }
}

TEST(Yaml, refuses_very_many_keys) {
  std::string yaml;
  for (int i = 0; i < 1001; ++i) yaml += "k" + std::to_string(i) + ": 1\n";
  expect_config_error([&] { parse_yaml(yaml, "t"); }, "at most 1000 keys");
}

void read_or_refuse(const std::string& yaml) {
  try {
    const Config config = from_text(yaml, "fuzz.yaml", {});
    EXPECT_EQ(to_yaml(from_text(to_yaml(config), "fuzz.yaml", {})), to_yaml(config));
  } catch (const ConfigError&) {
  }
}

TEST(Yaml, damaged_files_are_read_or_refused) {
  const std::string good =
      "model: {preset: \"a\\u00e9\", num_layers: 4}\n"
      "data: {path: [a, {path: b, weight: 2}], split: '1,2'}\n"
      "optim:\n  betas: [0.9, 0.95]\n  groups:\n  - match: '*'\n    lr_scale: 0.5 # half\n"
      "run: {dir: |\n  text\n  }\n";
  for (size_t size = 0; size <= good.size(); ++size) read_or_refuse(good.substr(0, size));
  for (size_t i = 0; i < good.size(); ++i) {
    for (const char damage :
         {'\0', '\xff', '{', ']', ':', '\n', '\t', '"', '&', '-', '%', '\x80'}) {
      std::string bad = good;
      bad[i] = damage;
      read_or_refuse(bad);
    }
  }
  read_or_refuse(
      "\xff\xfe"
      "a\0:\0 \0");
  read_or_refuse(
      "\xef\xbb\xbf"
      "train: {steps: 3}");
}

}  // namespace
}  // namespace qianli::config
