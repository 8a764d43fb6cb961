#include "qianli/text/chat/template_file.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "tests/support/test_paths.h"

namespace qianli::text::chat {
namespace {

NamedTemplate read(const std::string& text) {
  return template_of_json(parse_ordered_json(text, "text", FileRole::kConfig), "text");
}

std::string refusal(const std::string& text) {
  try {
    read(text);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

void expect_has(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), text.npos) << text;
}

// Entries as they stand in MindSpeed-LLM's file.
TEST(TemplateFile, entries_are_what_the_named_templates_are) {
  EXPECT_EQ(to_json(read(R"({"name": "x",
      "format_user": {"slots": [{"token": "<|user|>"}, "\n", "{{content}}", {"token": "<|assistant|>"}]},
      "format_assistant": {"slots": ["\n", "{{content}}"]},
      "format_system": {"slots": [{"token": "<|system|>"}, "\n", "{{content}}"]},
      "format_observation": {"slots": [{"token": "<|observation|>"}, "\n", "{{content}}", {"token": "<|assistant|>"}]},
      "format_tools": {"tool_format": "glm4"},
      "format_prefix": {"slots": [{"token": "[gMASK]"}, {"token": "sop"}]},
      "stop_words": ["<|user|>", "<|observation|>"], "efficient_eos": true})")),
            to_json(named_template("chatglm3")));
  EXPECT_EQ(
      to_json(read(
          R"({"name": "x", "format_user": {"slots": [["bos_token"], "[INST] {{content}} [/INST]"]},
      "format_system": {"slots": ["<<SYS>>\n{{content}}\n<</SYS>>\n\n"]}, "template_class": "Llama2Template"})")),
      to_json(named_template("llama2")));
  EXPECT_EQ(to_json(read(R"({"name": "x",
      "format_user": {"slots": ["<|im_start|>user\n{{content}}<|im_end|>\n<|im_start|>assistant\n"]},
      "format_assistant": {"slots": ["{{content}}<|im_end|>\n"]},
      "format_system": {"slots": ["<|im_start|>system\n{{content}}<|im_end|>\n"]},
      "format_function": {"slots": ["{{content}}<|im_end|>\n"], "tool_format": "qwen"},
      "format_observation": {"slots": ["<|im_start|>user\n<tool_response>\n{{content}}\n</tool_response><|im_end|>\n<|im_start|>assistant\n"]},
      "format_tools": {"tool_format": "qwen"}, "stop_words": ["<|im_end|>"], "replace_eos": true,
      "template_class": "ReasoningTemplate"})")),
            to_json(named_template("qwen3")));
  EXPECT_EQ(to_json(read(R"({"name": "x", "format_assistant": {"slots": ["{{content}}"]}})")),
            to_json(named_template("empty")));
  EXPECT_EQ(read(R"({"name": "x"})").assistant.size(), 2u);  // the content and the end of text
}

TEST(TemplateFile, what_is_not_known_is_refused_with_its_place) {
  expect_has(refusal(R"({"name": "x", "format_usr": {}})"),
             "text: template 'x': expected name, format_user");
  expect_has(refusal(R"({"name": "x", "format_usr": {}})"), "did you mean 'format_user'?");
  expect_has(refusal(R"({"name": "x", "template_class": "Llama3Template"})"), "template_class");
  expect_has(refusal(R"({"name": "x", "format_user": {"slots": [["pad_token"]]}})"),
             R"(got ["pad_token"])");
  expect_has(refusal(R"({"name": "x", "replace_eos": true})"), "expected stop_words");
  expect_has(refusal(R"({"name": "x", "efficient_eos": 1})"), "expected true or false");
  expect_has(refusal(R"({"name": "x", "thought_words": ["<think>"]})"),
             "expected two thought_words");
  expect_has(refusal(R"({"format_user": {}})"), "expected templates as objects with a name");
}

TEST(TemplateFile, templates_are_found_by_file_and_name) {
  const testing::TemporaryFolder folder;
  const std::string file = (folder / "mine.json").string();
  write_file_atomically(file, R"([{"name": "one"}, {"name": "two", "default_system": ["a", "b"]}])",
                        FileRole::kConfig);
  EXPECT_EQ(find_template(file + ":two")->default_system, "ab");
  EXPECT_EQ(find_template("qwen3")->name, "qwen3");
  EXPECT_TRUE(is_in_file(file + ":two"));
  EXPECT_FALSE(is_in_file("qwen3"));
  EXPECT_THROW(find_template(file + ":three"), ConfigError);
  EXPECT_THROW(find_template((folder / "other.json").string() + ":one"), Error);
}

}  // namespace
}  // namespace qianli::text::chat
