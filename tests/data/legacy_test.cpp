#include "qianli/data/instruction/legacy.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/data/instruction/sample_encoder.h"
#include "tests/data/instruction_support.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing_support::Ids;
using testing_support::words;
using Texts = std::vector<std::string>;
constexpr int32_t x = text::chat::kIgnored;

ExampleRules rules(const std::string& name) {
  const Handler known = handler(name);
  return {.format = known.format,
          .task = known.task,
          .columns = column_map(known.format, ""),
          .legacy = known.legacy,
          .additional = {}};
}

std::vector<Example> examples(const std::string& name, const std::string& row) {
  return read_examples(parse_ordered_json(row, "row", FileRole::kData), rules(name));
}

// "user: ..." of the one conversation.
Texts messages(const Example& example) {
  Texts texts;
  for (const auto& one : example.conversation.messages) {
    texts.push_back((one.role == text::chat::Role::kUser        ? "user: "
                     : one.role == text::chat::Role::kAssistant ? "assistant: "
                                                                : "system: ") +
                    one.content);
  }
  return texts;
}

std::string refusal(const std::string& name, const std::string& row) {
  try {
    examples(name, row);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST(Legacy, general_puts_a_line_feed_before_the_input_even_if_it_is_empty) {
  const auto one = examples("GeneralInstructionHandler",
                            R"({"instruction": "Hi", "input": "", "output": "Hello"})");
  EXPECT_EQ(messages(one[0]), (Texts{"user: Hi\n", "assistant: Hello"}));
  EXPECT_EQ(framed_text(one[0].conversation),
            "\nBelow is an instruction that describes a task, paired with an input that provides "
            "further context. Write a response that appropriately completes the request. Please "
            "note that you need to think through your response logically and step by step.\n### "
            "Instruction:\nHi\n\n### Response:\nHello\n");
  EXPECT_NE(refusal("GeneralInstructionHandler", R"({"instruction": "Hi", "output": "Hello"})")
                .find("expected the column 'input'"),
            std::string::npos);
}

TEST(Legacy, only_the_last_answer_of_a_frame_is_learnt) {
  const auto tokenizer = words();
  const auto one = examples(
      "BelleMultiTurnInstructionHandler",
      R"({"instruction": "Human: Hi \nAssistant: Hello\nHuman:Bye\nAssistant:\n", "output": " Ciao\u3000"})");
  EXPECT_EQ(messages(one[0]),
            (Texts{"user: Hi", "assistant: Hello", "user: Bye", "assistant: Ciao"}));
  const Sample sample = encode_legacy(Legacy::kBelle, one[0], *tokenizer, nullptr);
  const Ids& ids = sample.fields[0];
  const Ids learnt(sample.fields[1].end() - 2, sample.fields[1].end());
  EXPECT_EQ(learnt, (Ids{21, 13}));  // Ciao and its line feed
  EXPECT_EQ(Ids(ids.end() - 2, ids.end()), learnt);
  EXPECT_EQ(std::count(sample.fields[1].begin(), sample.fields[1].end(), x),
            static_cast<int64_t>(ids.size()) - 2);
}

TEST(Legacy, belle_conversations_that_do_not_end_with_a_question_are_refused) {
  const auto refused = [](const std::string& text) {
    const OrderedJson row = {{"instruction", text}, {"output", "No"}};
    return !refusal("BelleMultiTurnInstructionHandler", row.dump()).empty();
  };
  EXPECT_TRUE(refused("Human: Hi"));
  EXPECT_TRUE(refused("Human: Hi Assistant: Hello"));
  EXPECT_TRUE(refused("Human: Hi Assistant: Hello Assistant:"));
  EXPECT_TRUE(refused("Hi"));
  EXPECT_FALSE(refused("Hello Human: Hi Assistant:"));
}

TEST(Legacy, leetcode_asks_with_what_stands_before_the_code) {
  const auto one = examples(
      "LeetcodePythonInstructionHandler",
      R"({"code_with_problem": " Hi \n```py```", "code_only": "Hello", "explanation_only": "Bye"})");
  EXPECT_EQ(messages(one[0]), (Texts{"user: Hi", "assistant: Hello\nBye"}));
}

constexpr const char* kMoss =
    R"({"chat": {"turn_1": {"Human": "<|Human|>: Hi<eoh>\n", "MOSS": "<|MOSS|>: Hello<eom>\n"},
                 "turn_2": {}, "turn_3": {"Human": "Bye", "MOSS": "Ciao"}}})";

TEST(Legacy, moss_rows_give_a_sample_for_each_answer) {
  const auto two = examples("MOSSInstructionHandler", kMoss);
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(messages(two[0]), (Texts{"user: Hi", "assistant: Hello"}));
  EXPECT_EQ(messages(two[1]),
            (Texts{"user: Hi", "assistant: Hello", "user: Bye", "assistant: Ciao"}));
}

TEST(Legacy, moss_turns_between_two_markers) {
  const auto one = examples("MOSSMultiTurnHandler", kMoss);
  ASSERT_EQ(one.size(), 1u);
  const Sample sample = encode_legacy(Legacy::kMossMultiTurn, one[0], *words(), nullptr);
  EXPECT_EQ(sample.fields[0], (Ids{195, 11, 196, 20, 195, 14, 196, 21, 2}));
  EXPECT_EQ(sample.fields[1], (Ids{2, x, x, 20, 2, x, x, 21, 2}));
}

TEST(Legacy, hunyuan_conversations_come_in_threes) {
  const std::string system = R"({"from": "system", "value": "No"})",
                    human = R"({"from": "human", "value": "Hi"})",
                    gpt = R"({"from": "gpt", "value": "Hello"})";
  const auto row = [](const Texts& parts) {
    std::string text;
    for (const auto& part : parts) text += (text.empty() ? "" : ", ") + part;
    return R"({"conversations": [)" + text + "]}";
  };
  const auto one =
      examples("HunyuanInstructionHandler", row({system, human, gpt, system, human, gpt}));
  EXPECT_EQ(messages(one[0]).size(), 6u);
  EXPECT_FALSE(refusal("HunyuanInstructionHandler", row({human, gpt})).empty());
  EXPECT_FALSE(refusal("HunyuanInstructionHandler", row({system, human})).empty());
  EXPECT_FALSE(refusal("HunyuanInstructionHandler", row({})).empty());
}

// Loss from each <|extra_0|> to the next <|eos|>, as its template has them before and behind
// answers.
TEST(Legacy, hunyuan_learns_between_its_own_marks) {
  const testing::TemporaryFolder folder;
  write_file_atomically(folder / "chat_template.jinja",
                        "{% for m in messages %}{% if m.role == 'assistant' %}<|extra_0|>{{ "
                        "m.content }}<|eos|>{% else %}{{ m.content }}{% endif %}{% endfor %}",
                        FileRole::kData);
  write_file_atomically(folder / "tokenizer_config.json", "{}", FileRole::kData);
  OrderedJson json = {{"version", "1.0"},
                      {"added_tokens", OrderedJson::array()},
                      {"model",
                       {{"type", "WordLevel"},
                        {"vocab", {{"No", 0}, {"Hi", 1}, {"NoHi", 2}, {"Hello", 3}}},
                        {"unk_token", "No"}}}};
  for (const auto& [id, token] : {std::pair(4, "<|extra_0|>"), {5, "<|eos|>"}}) {
    json["added_tokens"].push_back({{"id", id},
                                    {"content", token},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false},
                                    {"special", true}});
  }
  const SampleEncoder encoder(
      text::Tokenizer::from_json(json.dump(), "words"),
      {.legacy = Legacy::kHunyuan, .own_template = {folder.path(), "", OrderedJson::object()}});
  const auto one = examples("HunyuanInstructionHandler",
                            R"({"conversations": [{"from": "system", "value": "No"},
                                {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]})");
  const Sample sample = encoder.encode(one[0]);
  EXPECT_EQ(sample.fields[0], (Ids{2, 4, 3, 5}));
  EXPECT_EQ(sample.fields[1], (Ids{x, 4, 3, 5}));
  const SampleEncoder without(
      words(),
      {.legacy = Legacy::kHunyuan, .own_template = {folder.path(), "", OrderedJson::object()}});
  EXPECT_THROW(without.encode(one[0]), DataError);
}

TEST(Legacy, options_of_templates_are_refused) {
  const auto refused = [](SampleOptions options) {
    EXPECT_THROW(SampleEncoder(words(), std::move(options)), ConfigError);
  };
  refused({.legacy = Legacy::kGeneral, .labels = {.mask_history = true}});
  refused({.legacy = Legacy::kMoss, .append_eod = true});
  refused({.legacy = Legacy::kGeneral, .sequence_length = 8, .cut = CutRule::kTwoSided});
}

TEST(Legacy, handlers_that_make_other_things_are_told_apart) {
  EXPECT_THROW(handler("GeneralPretrainHandler"), ConfigError);
  EXPECT_THROW(handler("LlamaFactoryInstructionHandler"), ConfigError);
}

}  // namespace
}  // namespace qianli::data
