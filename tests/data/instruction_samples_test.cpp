#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/data/instruction/openai_messages.h"
#include "qianli/data/instruction/packing.h"
#include "qianli/data/instruction/sample_encoder.h"
#include "qianli/data/instruction/show.h"
#include "tests/data/instruction_support.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing::TemporaryFolder;
using testing_support::example;
using testing_support::Ids;
using testing_support::kTwoTurns;
using testing_support::words;
constexpr int32_t x = text::chat::kIgnored;

Sample encode(SampleOptions options, const Example& one) {
  if (options.named_template.empty()) options.named_template = "default";
  return SampleEncoder(words(), options).encode(one);
}

TEST(Instruction, the_worked_example) {
  const Sample sample = encode({}, example(kTwoTurns));
  // "Human: Hi": the blank is a token here.
  EXPECT_EQ(sample.fields[0], (Ids{10, 9, 11, 12, 20, 2, 13, 10, 9, 14, 12, 21, 2}));
  EXPECT_EQ(sample.fields[1], (Ids{x, x, x, x, 20, 2, x, x, x, x, x, 21, 2}));
}

TEST(Instruction, what_is_learnt) {
  const auto labels = [](text::chat::LabelOptions options) {
    return encode({.labels = options}, example(kTwoTurns)).fields[1];
  };
  EXPECT_EQ(labels({.mask_history = true}), (Ids{x, x, x, x, x, x, x, x, x, x, x, 21, 2}));
  EXPECT_EQ(labels({.train_on_prompt = true}),
            (Ids{10, 9, 11, 12, 20, 2, 13, 10, 9, 14, 12, 21, 2}));
  EXPECT_EQ(encode({.append_eod = true}, example(kTwoTurns)).fields[1].back(), 2);
  EXPECT_EQ(encode({.append_eod = true}, example(kTwoTurns)).fields[1].size(), 14u);
}

TEST(Instruction, samples_of_the_sequence_length_are_too_long) {
  const auto long_one = [](int64_t length, CutRule cut) {
    return encode({.sequence_length = length, .cut = cut}, example(kTwoTurns));
  };
  EXPECT_FALSE(long_one(14, CutRule::kDrop).too_long);
  EXPECT_TRUE(long_one(13, CutRule::kDrop).too_long);
  EXPECT_FALSE(long_one(13, CutRule::kDrop).cut);
  // Cut by shares to the length itself, so left out in the end.
  EXPECT_TRUE(long_one(8, CutRule::kTemplate).too_long);
  const Sample cut = long_one(8, CutRule::kTwoSided);
  EXPECT_TRUE(cut.cut);
  EXPECT_FALSE(cut.too_long);
  EXPECT_EQ(cut.longest(), 7);
  EXPECT_EQ(cut.fields[0], (Ids{10, 9, 11, 12, 20, 2, 13}));
}

TEST(Instruction, pairs_share_their_prompt) {
  const auto one = example(R"({"instruction": "Hi", "chosen": "Hello", "rejected": "No"})",
                           RowFormat::kAlpaca, InstructionTask::kPreference);
  const Sample sample = encode({.task = InstructionTask::kPreference}, one);
  EXPECT_EQ(sample.fields[0], (Ids{10, 9, 11, 12, 20, 2}));
  EXPECT_EQ(sample.fields[1], (Ids{x, x, x, x, 20, 2}));
  EXPECT_EQ(sample.fields[2], (Ids{10, 9, 11, 12, 22, 2}));
  EXPECT_EQ(sample.fields[3], (Ids{x, x, x, x, 22, 2}));
  const Sample cut = encode(
      {.task = InstructionTask::kPreference, .sequence_length = 5, .cut = CutRule::kTwoSided}, one);
  EXPECT_EQ(cut.fields[0], (Ids{10, 9, 11, 20}));
  EXPECT_EQ(cut.fields[2], (Ids{10, 9, 11, 22}));
}

TEST(Instruction, steps_are_labelled_at_their_markers) {
  const auto steps = [](const std::string& text, std::vector<std::string> rewards) {
    return encode({.task = InstructionTask::kProcessReward,
                   .step_marker = "|",
                   .reward_tokens = std::move(rewards)},
                  example(text, RowFormat::kSteps, InstructionTask::kProcessReward));
  };
  const std::string row = R"({"input": "Hi | Bye |", "value": ["+", "-"]})";
  EXPECT_EQ(steps(row, {"+", "-"}).fields[0], (Ids{11, 9, 5, 9, 14, 9, 5}));
  EXPECT_EQ(steps(row, {"+", "-"}).fields[1], (Ids{x, x, 3, x, x, x, 4}));
  EXPECT_EQ(steps(row, {}).fields[1], (Ids{x, x, 3, x, x, x, 4}));
  EXPECT_THROW(steps(R"({"input": "Hi |", "value": ["+", "-"]})", {"+", "-"}), DataError);
  EXPECT_THROW(steps(row, {"+"}), DataError);
  EXPECT_THROW(steps(row, {"+ -"}), DataError);  // three tokens
}

TEST(Instruction, prompts) {
  EXPECT_EQ(encode({.task = InstructionTask::kPpo}, example(kTwoTurns)).fields,
            (std::vector<Ids>{{10, 9, 11, 12, 13, 10, 9, 14, 12}}));
  EXPECT_EQ(
      encode({.task = InstructionTask::kPrompts, .additional = {"labels"}}, example(kTwoTurns))
          .fields,
      (std::vector<Ids>{{10, 9, 11, 12, 20, 2, 13, 10, 9, 14, 12}, {21}}));
}

TEST(Instruction, plain_text_ends_with_the_end_of_text) {
  const Sample sample =
      encode({.plain_text = true}, example(R"({"text": "Hi Bye"})", RowFormat::kText));
  EXPECT_EQ(sample.fields[0], (Ids{11, 9, 14, 2}));
  EXPECT_EQ(sample.fields[1], sample.fields[0]);
}

TEST(Instruction, options_that_do_not_fit) {
  const auto refused = [](SampleOptions options) {
    EXPECT_THROW(encode(std::move(options), example(kTwoTurns)), ConfigError);
  };
  refused({.task = InstructionTask::kPpo, .append_eod = true});
  refused({.labels = {.train_on_prompt = true, .mask_history = true}});
  refused({.cut = CutRule::kTwoSided});
  refused({.additional = {"labels"}});
  EXPECT_THROW(cut_rule("twosided"), ConfigError);
}

TEST(Packing, bins) {
  const auto bins = [](std::vector<int32_t> lengths, int64_t capacity) {
    std::vector<std::vector<int32_t>> filled;
    for (const auto& bin : pack_bins(lengths, capacity)) {
      filled.emplace_back();
      for (const int64_t i : bin) filled.back().push_back(lengths[static_cast<size_t>(i)]);
    }
    return filled;
  };
  using Bins = std::vector<std::vector<int32_t>>;
  EXPECT_EQ(bins({3, 9, 4, 7, 2, 5}, 14), (Bins{{9, 5}, {7, 4, 3}, {2}}));
  EXPECT_EQ(bins({5, 5, 5, 6}, 11), (Bins{{6, 5}, {5, 5}}));
  EXPECT_EQ(pack_bins(std::vector<int32_t>{4, 4, 4}, 8),
            (std::vector<std::vector<int64_t>>{{2, 1}, {0}}));
}

class OwnTemplates : public ::testing::Test {
 protected:
  std::vector<std::pair<Ids, Ids>> turns(const std::string& text, bool last_only = false) const {
    write_file_atomically(folder_ / "chat_template.jinja", text, FileRole::kData);
    write_file_atomically(folder_ / "tokenizer_config.json", R"({"eos_token": "</s>"})",
                          FileRole::kData);
    const OwnTemplate own({folder_.path(), "", OrderedJson::object()}, words());
    std::vector<std::pair<Ids, Ids>> all;
    const auto messages = openai_messages(example(kTwoTurns).conversation);
    for (const auto& turn : own.encode(messages, nullptr, last_only))
      all.emplace_back(turn.source, turn.target);
    return all;
  }
  static std::string with_answer(const std::string& answer) {
    return "{% for m in messages %}{% if m.role == 'user' %}Human:{{ m.content }}{% else %}" +
           answer +
           "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '\\nAssistant:' }}{% endif %}";
  }
  TemporaryFolder folder_;
};
using Turns = std::vector<std::pair<Ids, Ids>>;

TEST_F(OwnTemplates, that_mark_what_the_assistant_says) {
  EXPECT_EQ(turns(with_answer("{{ '\\nAssistant:' }}{% generation %}{{ m.content }}"
                              "{% endgeneration %}{{ '\\n' }}")),
            (Turns{{{10, 11, 12}, {20}}, {{13, 10, 14, 12}, {21}}, {{13}, {}}}));
}

TEST_F(OwnTemplates, whose_answers_end_with_the_end_of_text) {
  const std::string text = with_answer("{{ '\\nAssistant:' + m.content }}</s>{{ '\\n' }}");
  EXPECT_EQ(turns(text), (Turns{{{10, 11, 12}, {20, 2}}, {{13, 10, 14, 12}, {21, 2}}, {{13}, {}}}));
  EXPECT_EQ(turns(text, true), (Turns{{{10, 11, 12, 20, 2, 13, 10, 14, 12}, {21, 2}}, {{13}, {}}}));
}

// As LLaMA-3's first one did.
TEST_F(OwnTemplates, that_always_ask_for_an_answer) {
  EXPECT_EQ(turns("{% for m in messages %}{% if m.role == 'user' %}Human:{{ m.content }}{% else %}"
                  "{{ '\\nAssistant:' + m.content }}</s>{% endif %}{% endfor %}"
                  "{% if messages[-1].role == 'user' or true %}{{ '\\nAssistant:' }}{% endif %}"),
            (Turns{{{10, 11, 12}, {20, 2}}, {{10, 14, 12}, {21, 2}}, {{12}, {}}}));
}

TEST_F(OwnTemplates, that_drop_the_thoughts_of_earlier_answers) {
  EXPECT_EQ(turns(with_answer("{{ '\\nAssistant:' }}{% if loop.last %}<think>No</think>{{ '\\n' }}"
                              "{% endif %}{{ m.content }}</s>")),
            (Turns{{{10, 11, 12}, {20, 2}}, {{10, 14, 12}, {40, 22, 41, 13, 21, 2}}}));
}

TEST_F(OwnTemplates, that_write_earlier_turns_anew_are_refused) {
  EXPECT_THROW(turns("{{ messages | length }}" + with_answer("{{ m.content }}")), DataError);
}

TEST(Show, what_is_learnt_can_be_seen) {
  const ShownSequence one{"",
                          {10, 9, 11, 12, 20, 2, 13, 14, 1, 1},
                          {x, x, x, x, 20, 2, 2, 14, x, x},
                          {1, 1, 1, 1, 1, 1, 2, 2, 0, 0}};
  EXPECT_EQ(
      to_text(one, words(), false),
      "──── sample 1\n[Human: Hi\nAssistant:]Hello</s>\n──── sample 2\n\n{</s>}Bye\n(2 tokens of "
      "padding)\n");
  const std::string colours = to_text(one, words(), true);
  EXPECT_NE(colours.find("\033[32mHello\033[0m"), colours.npos) << colours;
  EXPECT_NE(colours.find("\033[2mHuman:\033[0m"), colours.npos);
}

TEST(Show, control_characters_do_not_reach_the_terminal) {
  const auto tokenizer = text::Tokenizer::from_json(
      R"({"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel",
          "vocab": {"\u001b[31m": 0, "a\u009b\u00e9": 1}, "unk_token": "a"}})",
      "words");
  EXPECT_EQ(to_text({"", {0, 1}, {}, {}}, tokenizer, false), "[\\x1b[31m a\\x9b\u00e9]\n");
}

}  // namespace
}  // namespace qianli::data
