#include "qianli/data/instruction/example.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/data/instruction/openai_messages.h"

namespace qianli::data {
namespace {

OrderedJson row(const std::string& text) {
  return parse_ordered_json(text, "row", FileRole::kData);
}

// "role:content|..." of the messages, then "+chosen -rejected".
std::string read(RowFormat format, const std::string& text, const std::string& map_keys = "",
                 InstructionTask task = InstructionTask::kSft) {
  const Example example = read_example(
      row(text), {.format = format, .task = task, .columns = column_map(format, map_keys)});
  std::string out = example.conversation.system.empty() ? "" : example.conversation.system + "# ";
  for (const auto& one : example.conversation.messages)
    out += "SDUAFOL"[static_cast<size_t>(one.role)] + (":" + one.content) + "|";
  if (example.chosen) out += "+" + example.chosen->content;
  if (example.rejected) out += " -" + example.rejected->content;
  return out;
}

template <class Body>
std::string failure(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void expect_has(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), text.npos) << text;
}

constexpr auto kPairs = InstructionTask::kPreference;

TEST(Example, alpaca) {
  const auto alpaca = [](const std::string& text, const std::string& map = "") {
    return read(RowFormat::kAlpaca, text, map);
  };
  EXPECT_EQ(alpaca(R"({"instruction": "a", "input": "b", "output": "c"})"), "U:a\nb|A:c|");
  EXPECT_EQ(alpaca(R"({"instruction": "", "input": "b", "output": "c"})"), "U:b|A:c|");
  EXPECT_EQ(alpaca(R"({"instruction": "a", "output": ["c"], "system": "s",
                       "history": [["x", "y"], ["z", "w"]]})"),
            "s# U:x|A:y|U:z|A:w|U:a|A:c|");
  EXPECT_EQ(alpaca(R"({"instruction": "a", "input": "b", "output": "c", "system": "s"})",
                   R"({"query": "", "system": ""})"),
            "U:a|A:c|");
  EXPECT_EQ(alpaca(R"({"q": "a", "ans": "c"})", R"({"prompt": "q", "response": "ans"})"),
            "U:a|A:c|");
}

TEST(Example, alpaca_rows_that_do_not_fit) {
  const auto problem = [](const std::string& text) {
    return failure([&] { read(RowFormat::kAlpaca, text); });
  };
  expect_has(
      problem(R"({"instruction": "a", "outputs": "b"})"),
      "expected the column 'output', got 'instruction', 'outputs' (did you mean 'outputs'?)");
  expect_has(problem(R"({"instruction": "a", "output": null})"),
             "expected a value in the column 'output', got null");
  expect_has(problem(R"({"instruction": "a", "output": 7})"),
             "expected a text in the column 'output', got number");
  expect_has(problem(R"({"instruction": "a", "output": ["b", "c"]})"), "--task preference");
  expect_has(problem(R"({"instruction": "", "output": "b"})"), "expected a question");
  expect_has(problem(R"({"instruction": "a", "output": "b", "history": [["x"]]})"),
             "expected pairs of texts in the column 'history', got [\"x\"]");
}

TEST(Example, sharegpt) {
  const std::string text = R"({"conversations": [
   {"from": "system", "value": "Be brief."}, {"from": "human", "value": "Weather?"},
   {"from": "function_call", "value": "{}"}, {"from": "observation", "value": "3"},
   {"from": "gpt", "value": "3 degrees."}], "system": "other",
   "tools": "[{\"name\": \"w\"}]"})";
  EXPECT_EQ(read(RowFormat::kSharegpt, text),
            "other# S:Be brief.|U:Weather?|F:{}|O:3|A:3 degrees.|");
  const Example example = read_example(
      row(text), {.format = RowFormat::kSharegpt, .columns = column_map(RowFormat::kSharegpt, "")});
  EXPECT_EQ(example.conversation.tools.dump(), R"([{"name":"w"}])");
  EXPECT_EQ(read(RowFormat::kSharegpt,
                 R"({"messages": [{"role": "user", "content": "a"},
                     {"role": "assistant", "content": "b"}]})",
                 R"({"messages": "messages", "tags": {"role_tag": "role", "content_tag": "content",
                     "user_tag": "user", "assistant_tag": "assistant"}})"),
            "U:a|A:b|");
}

TEST(Example, sharegpt_rows_that_do_not_fit) {
  const auto problem = [](const std::string& messages) {
    return failure([&] { read(RowFormat::kSharegpt, R"({"conversations": )" + messages + "}"); });
  };
  expect_has(problem(R"([{"from": "human", "value": "a"}])"), "expected an answer at the end");
  expect_has(problem("[]"), "got 0 messages");
  expect_has(problem(R"([{"from": "gpt", "value": "a"}])"),
             "expected a question (user, observation) at message 1 of 'conversations'");
  expect_has(problem(R"([{"from": "human", "value": "a"}, {"from": "observation", "value": "b"}])"),
             "expected an answer (assistant, function call) at message 2");
  expect_has(problem(R"([{"from": "user", "value": "a"}])"), "got 'user'");
  expect_has(problem(R"([{"role": "user", "content": "a"}])"), "expected texts 'from' and 'value'");
}

TEST(Example, openai) {
  const std::string call = R"({"role": "assistant", "tool_calls":
      [{"id": "1", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]})";
  const std::string text = R"({"messages": [{"role": "user", "content": "a"}, )" + call +
                           R"(, {"role": "tool", "content": "r", "tool_call_id": "1"},
      {"role": "assistant", "content": "b", "reasoning_content": "t", "more": 1}]})";
  EXPECT_EQ(read(RowFormat::kOpenai, text), "U:a|A:|O:r|A:b|");
  const Example example = read_example(
      row(text), {.format = RowFormat::kOpenai, .columns = column_map(RowFormat::kOpenai, "")});
  EXPECT_EQ(example.own_messages[3]["more"], 1);
  EXPECT_EQ(example.conversation.messages[3].reasoning, "t");
  expect_has(failure([&] { read(RowFormat::kOpenai, R"({"messages": [{"role": "user"}]})"); }),
             "expected assistant as the last message");
  expect_has(failure([&] {
               read(RowFormat::kOpenai, R"({"messages": [{"role": "assistant", "content": "x"}]})");
             }),
             "expected system or user as the first message");
}

TEST(Example, completions) {
  EXPECT_EQ(read(RowFormat::kCompletion, R"({"prompt": "a", "completion": "b"})"), "U:a|A:b|");
  EXPECT_EQ(
      read(RowFormat::kCompletion,
           R"({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
                     "completion": [{"role": "assistant", "content": "b"}]})"),
      "S:s|U:a|A:b|");
}

TEST(Example, pairs_in_every_style) {
  EXPECT_EQ(read(RowFormat::kAlpaca, R"({"instruction": "q", "chosen": "c", "rejected": "r"})", "",
                 kPairs),
            "U:q|+c -r");
  EXPECT_EQ(
      read(RowFormat::kAlpaca,
           R"({"instruction": "q", "chosen": ["c", "r"], "rejected": ["c", "r"]})", "", kPairs),
      "U:q|+c -r");
  EXPECT_EQ(read(RowFormat::kAlpaca, R"({"instruction": "q", "output": ["c", "r"]})", "", kPairs),
            "U:q|+c -r");
  EXPECT_EQ(read(RowFormat::kSharegpt,
                 R"({"conversations": [{"from": "human", "value": "q"}],
                     "chosen": {"from": "gpt", "value": "c"},
                     "rejected": {"from": "gpt", "value": "r"}})",
                 "", kPairs),
            "U:q|+c -r");
  EXPECT_EQ(
      read(RowFormat::kCompletion,
           R"({"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "c"}],
                     "rejected": [{"role": "user", "content": "q"},
                                  {"role": "assistant", "content": "r"}]})",
           "", kPairs),
      "U:q|+c -r");
  expect_has(failure([] {
               read(RowFormat::kSharegpt,
                    R"({"conversations": [{"from": "human", "value": "q"},
                        {"from": "gpt", "value": "a"}]})",
                    "", kPairs);
             }),
             "expected a question at the end");
}

TEST(Example, steps_and_texts) {
  const auto steps =
      read_example(row(R"({"input": "Q x y x", "value": ["+", "-"]})"),
                   {.format = RowFormat::kSteps, .columns = column_map(RowFormat::kSteps, "")});
  EXPECT_EQ(steps.text, "Q x y x");
  EXPECT_EQ(steps.step_labels, (std::vector<std::string>{"+", "-"}));
  const auto text = read_example(row(R"({"text": "t", "kept": "k"})"),
                                 {.format = RowFormat::kText,
                                  .columns = column_map(RowFormat::kText, ""),
                                  .additional = {"kept", "labels"}});
  EXPECT_EQ(text.text, "t");
  EXPECT_EQ(text.additional, (std::vector<std::pair<std::string, std::string>>{{"kept", "k"}}));
}

TEST(Example, maps_of_keys_that_do_not_fit) {
  const auto problem = [](const std::string& map) {
    return failure([&] { column_map(RowFormat::kAlpaca, map); });
  };
  expect_has(problem(R"({"promt": "a"})"),
             "expected a key of the format alpaca in the map of keys, got 'promt' (did you mean "
             "'prompt'?)");
  expect_has(problem(R"({"tags": {}})"), "got 'tags'");
  expect_has(problem("{prompt: a}"), "expected JSON as map of keys");
  expect_has(problem(R"({"prompt": 1})"), "expected a column's name under 'prompt'");
  expect_has(failure([] { column_map(RowFormat::kSharegpt, R"({"tags": {"role": "x"}})"); }),
             "expected a tag of the map of keys, got 'role'");
  EXPECT_NO_THROW(column_map(RowFormat::kSharegpt, R"({"kto_tag": "x"})"));
  const auto map = column_map(RowFormat::kAlpaca, R"({"prompt": "question"})");
  expect_has(failure([&] { check_columns(map, {row(R"({"questions": 1})")}, "x.json"); }),
             "x.json: expected the column 'question' of the map of keys, got 'questions'");
}

TEST(Example, the_format_shows_in_the_first_rows) {
  const auto detected = [](const std::string& text) {
    const auto found = detect_format({row(text)}, "x.json");
    return std::string(name_of(found.format)) + " " + name_of(found.task) + found.map_keys;
  };
  EXPECT_EQ(detected(R"({"instruction": "", "output": ""})"), "alpaca sft");
  EXPECT_EQ(detected(R"({"instruction": "", "chosen": "", "rejected": ""})"), "alpaca preference");
  EXPECT_EQ(detected(R"({"conversations": [{"from": "human"}]})"), "sharegpt sft");
  EXPECT_EQ(detected(R"({"conversations": [{"role": "user"}]})"),
            "openai sft{\"messages\": \"conversations\"}");
  EXPECT_EQ(detected(R"({"messages": [{"role": "user"}], "text": ""})"), "openai sft");
  EXPECT_EQ(detected(R"({"prompt": "", "completion": ""})"), "completion sft");
  EXPECT_EQ(detected(R"({"chosen": [{"role": "user"}], "rejected": []})"), "completion preference");
  EXPECT_EQ(detected(R"({"input": "", "value": []})"), "steps process-reward");
  EXPECT_EQ(detected(R"({"text": ""})"), "text sft");
  expect_has(failure([&] { detected(R"({"question": "", "answer": ""})"); }),
             "x.json: no known format fits rows with the columns 'answer', 'question'");
  expect_has(failure([&] {
               detected(R"({"messages": [{"role": "user"}], "instruction": "", "output": ""})");
             }),
             "could be alpaca (sft) or openai (sft)");
}

TEST(Example, names_and_handlers) {
  EXPECT_EQ(row_format("sharegpt"), RowFormat::kSharegpt);
  EXPECT_EQ(instruction_task("ppo"), InstructionTask::kPpo);
  expect_has(failure([] { row_format("alpca"); }), "did you mean 'alpaca'?");
  EXPECT_EQ(handler("SharegptStylePairwiseHandler").task, kPairs);
  expect_has(failure([] { handler("AlpacaStyleInstructionHandle"); }),
             "did you mean 'AlpacaStyleInstructionHandler'?");
}

TEST(Example, calls_in_two_spellings) {
  const auto one = row(R"([{"role": "assistant", "content": "", "tool_calls":
      [{"type": "function", "function": {"name": "f", "arguments": {"x": [1]}}}]}])");
  const OrderedJson other = other_spelling(one);
  EXPECT_TRUE(other[0]["content"].is_null());
  EXPECT_EQ(other[0]["tool_calls"][0]["function"]["arguments"], "{\"x\": [1]}");
  EXPECT_EQ(other_spelling(other), one);
}

TEST(Example, messages_for_a_template_of_the_model) {
  const Example example = read_example(
      row(R"({"conversations": [{"from": "human", "value": "q"},
          {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
          {"from": "observation", "value": "r"}, {"from": "gpt", "value": "a"}], "system": "s"})"),
      {.format = RowFormat::kSharegpt, .columns = column_map(RowFormat::kSharegpt, "")});
  EXPECT_EQ(openai_messages(example.conversation).dump(),
            R"([{"role":"system","content":"s"},{"role":"user","content":"q"},)"
            R"({"role":"assistant","content":"","tool_calls":[{"type":"function","function":)"
            R"({"name":"f","arguments":{"x":1}}}]},{"role":"tool","content":"r"},)"
            R"({"role":"assistant","content":"a"}])");
}

}  // namespace
}  // namespace qianli::data
