#include <gtest/gtest.h>

#include <set>

#include "qianli/base/error.h"
#include "qianli/text/chat/encode_turns.h"
#include "qianli/text/chat/model_template.h"
#include "qianli/text/chat/tool_format.h"
#include "tests/support/test_paths.h"

namespace qianli::text::chat {
namespace {

using testing::shared_data;
using testing::source_path;
using testing::TemporaryFolder;

OrderedJson vectors() {
  const auto path = source_path("tests/golden/chat/named_templates.json");
  return parse_ordered_json(read_file(path, FileRole::kData), path.string(), FileRole::kData);
}

Conversation conversation(std::string_view json) {
  return read_conversation(parse_ordered_json(json, "test", FileRole::kData), "test");
}

Conversation conversation_of(const OrderedJson& item) {
  OrderedJson json = {{"messages", item["messages"]}};
  for (const char* key : {"system", "tools"}) {
    if (item.contains(key)) json[key] = item[key];
  }
  return read_conversation(json, "test");
}

TurnOptions options_of(const OrderedJson& item) {
  const std::string thinking = item.value("enable_thinking", "none");
  TurnOptions options;
  options.thinking = thinking == "true"    ? Thinking::kOn
                     : thinking == "false" ? Thinking::kOff
                                           : Thinking::kUnset;
  options.drop_thinking = item.value("drop_thinking", true);
  return options;
}

Turns render(const char* name, std::string_view json, const TurnOptions& options = {}) {
  return render_turns(named_template(name), conversation(json), options);
}

// Where a template makes its first stop word the tokenizer's eos, the vectors show that word.
std::string plain(const Slot& slot, const NamedTemplate& named) {
  return to_text(slot, "<BOS>", named.replace_eos ? named.stop_words.front() : "<EOS>");
}
std::string plain(const Slot& slot) { return to_text(slot, "<BOS>", "<EOS>"); }

TEST(NamedTemplates, give_the_turns_of_all_test_vectors) {
  std::set<std::string> seen;
  for (const OrderedJson& item : vectors()) {
    const auto name = item["template"].get<std::string>();
    SCOPED_TRACE(item.dump().substr(0, 200));
    seen.insert(name);
    const Turns rendered =
        render_turns(named_template(name), conversation_of(item), options_of(item));
    ASSERT_EQ(rendered.turns.size(), item["turns"].size());
    for (size_t i = 0; i < rendered.turns.size(); ++i) {
      EXPECT_EQ(plain(rendered.turns[i].source, named_template(name)),
                item["turns"][i]["source"].get<std::string>());
      EXPECT_EQ(plain(rendered.turns[i].target, named_template(name)),
                item["turns"][i]["target"].get<std::string>());
    }
    EXPECT_EQ(rendered.efficient_eos, item.contains("final_eos_appended"));
    EXPECT_TRUE(rendered.warnings.empty());
  }
  for (const NamedTemplate& entry : named_templates())
    EXPECT_TRUE(seen.count(entry.name)) << entry.name;
  EXPECT_EQ(seen.size(), named_templates().size());
  EXPECT_EQ(named_templates().size(), 34u);
}

// Ids of the pieces are those of the whole text for markers that the tokenizer knows, and labels
// are the targets; the eos that efficient templates leave out stands on the next token.
TEST(NamedTemplates, encode_with_a_real_tokenizer) {
  QIANLI_REQUIRE_DATA(folder, "tokenizers/qwen3");
  const auto tokenizer = Tokenizer::load(folder);
  size_t encoded = 0;
  for (const OrderedJson& item : vectors()) {
    const NamedTemplate& named = named_template(item["template"].get<std::string>());
    SCOPED_TRACE(named.name);
    if (named.replace_eos && !tokenizer->id_of(named.stop_words[0])) continue;
    const Turns turns = render_turns(named, conversation_of(item), options_of(item));
    const auto uses_tokens = [](const Slot& slot) {
      return std::any_of(slot.begin(), slot.end(),
                         [](const Part& part) { return part.kind == Part::Kind::kToken; });
    };
    if (std::any_of(turns.turns.begin(), turns.turns.end(),
                    [&](const Turn& t) { return uses_tokens(t.source); })) {
      EXPECT_THROW(TurnEncoder(tokenizer, named), DataError);  // [gMASK] and the like are GLM's
      continue;
    }
    const TurnEncoder encoder(tokenizer, named);
    const auto pairs = encoder.encode(turns);
    const TrainingSample sample = encoder.sample(pairs);
    std::string text, learnt;
    size_t place = 0;
    std::vector<size_t> marked;
    for (size_t i = 0; i < pairs.size(); ++i) {
      text += to_text(turns.turns[i].source, encoder.bos_text(), encoder.eos_text());
      text += to_text(turns.turns[i].target, encoder.bos_text(), encoder.eos_text());
      learnt += to_text(turns.turns[i].target, encoder.bos_text(), encoder.eos_text());
      if (i > 0) marked.push_back(place);
      place += pairs[i].source.size() + pairs[i].target.size();
    }
    std::vector<int32_t> labels;
    for (size_t i = 0; i < sample.labels.size(); ++i) {
      const bool closes = std::find(marked.begin(), marked.end(), i) != marked.end();
      if (closes)
        EXPECT_EQ(sample.labels[i], named.efficient_eos ? *encoder.eos() : kIgnored);
      else if (sample.labels[i] != kIgnored)
        labels.push_back(sample.labels[i]);
    }
    if (named.efficient_eos) text += encoder.eos_text(), learnt += encoder.eos_text();
    EXPECT_EQ(tokenizer->decode(sample.ids, false), text);
    EXPECT_EQ(tokenizer->decode(labels, false), learnt);
    EXPECT_EQ(sample.ids.size(), sample.labels.size());
    ++encoded;
  }
  EXPECT_GT(encoded, 50u);
}

TEST(NamedTemplates, are_found_with_a_suggestion) {
  EXPECT_EQ(named_template("qwen3").name, "qwen3");
  try {
    named_template("qwen33");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'qwen3'"), std::string::npos)
        << error.what();
  }
}

constexpr const char* kThought =
    R"([{"role":"user","content":"q"},{"role":"assistant","content":"<think>old</think>A"},
  {"role":"user","content":"r"},{"role":"assistant","content":"<think>\nnew\n</think>\n\nB"}])";

TEST(NamedTemplates, one_answer_mode_drops_earlier_thoughts) {
  const Turns turns = render("qwen3", kThought, {.last_answer_only = true});
  EXPECT_EQ(plain(turns.turns[0].target), "A<|im_end|>\n");
  EXPECT_EQ(plain(turns.turns[0].source), "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(plain(turns.turns[1].target), "<think>\nnew\n</think>\n\nB<|im_end|>\n");
  const Turns off =
      render("qwen3", kThought, {.thinking = Thinking::kOff, .last_answer_only = true});
  EXPECT_EQ(plain(off.turns[1].target), "B<|im_end|>\n");
  EXPECT_TRUE(plain(off.turns[1].source).ends_with("assistant\n<think>\n\n</think>\n\n"));
}

// "<think>x</think>y" has a thought, with or without line feeds around it.
TEST(NamedTemplates, thoughts_are_seen_without_line_feeds) {
  const Turns kept = render("qwen3", kThought);
  EXPECT_EQ(plain(kept.turns[0].target), "<think>old</think>A<|im_end|>\n");
  EXPECT_FALSE(plain(kept.turns[0].source).ends_with("</think>\n\n"));
  EXPECT_EQ(plain(render("qwen3", kThought, {.thinking = Thinking::kOff}).turns[0].target),
            "A<|im_end|>\n");
}

TEST(NamedTemplates, placeholders_in_messages_stay) {
  const Turns turns = render(
      "chatglm2",
      R"([{"role":"user","content":"{{idx}} {{content}} {{name}}"},{"role":"assistant","content":"{{content}}"}])");
  EXPECT_EQ(plain(turns.turns[0].source),
            "[gMASK]sop[Round 0]\n\n问：{{idx}} {{content}} {{name}}\n\n答：");
  EXPECT_EQ(plain(turns.turns[0].target), "{{content}}");
}

TEST(NamedTemplates, system_text_comes_from_message_sample_or_default) {
  const char* const kMessages =
      R"({"system":"sample","messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]})";
  EXPECT_NE(plain(render("qwen", kMessages).turns[0].source).find("sample"), std::string::npos);
  const Turns leading = render(
      "qwen",
      R"({"system":"sample","messages":[{"role":"system","content":"leading"},{"role":"user","content":"q"}]})");
  EXPECT_EQ(plain(leading.turns[0].source),
            "<|im_start|>system\nleading<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>"
            "assistant\n");
  EXPECT_TRUE(leading.turns[0].target.empty());
  const Turns none = render("qwen", R"([{"role":"user","content":"q"}])", {.default_system = ""});
  EXPECT_EQ(plain(none.turns[0].source), "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n");
}

TEST(NamedTemplates, refuse_roles_out_of_order_naming_the_message) {
  for (const char* json : {R"([{"role":"assistant","content":"a"}])",
                           R"([{"role":"user","content":"a"},{"role":"user","content":"b"}])",
                           R"([{"role":"system","content":"a"}])", R"([])"}) {
    EXPECT_THROW(render("qwen", json), DataError) << json;
  }
  try {
    render("qwen", R"([{"role":"user","content":"a"},{"role":"user","content":"b"}])");
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("message 1, got user"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(conversation(R"([{"role":"usr","content":"a"}])"), DataError);
  EXPECT_THROW(conversation(R"([{"content":"a"}])"), DataError);
  EXPECT_THROW(conversation(R"({"messages":{}})"), DataError);
}

TEST(ToolFormats, several_calls_and_thoughts) {
  EXPECT_EQ(
      json_calls(
          R"(<think>a</think>[{"name":"f","arguments":{"x":1.0,"y":"é"}},{"arguments":{},"name":"g"}])"),
      "<think>a</think><tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1.0, \"y\": "
      "\"é\"}}\n</tool_call>\n"
      "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>");
  EXPECT_THROW(json_calls("no JSON"), DataError);
  EXPECT_FALSE(name_and_arguments("no JSON").understood);
  EXPECT_EQ(name_and_arguments(R"({"name":"f","arguments":{"a":[1,2]}})").arguments,
            R"({"a": [1, 2]})");
  const Turns turns =
      render("default", R"([{"role":"user","content":"q"},{"role":"function","content":"oops"}])");
  EXPECT_EQ(turns.warnings.size(), 1u);
}

TEST(ToolFormats, openai_calls_become_function_messages) {
  const Turns turns =
      render("qwen3", R"([{"role":"user","content":"q"},{"role":"assistant","content":null,
    "tool_calls":[{"id":"1","function":{"name":"f","arguments":"{\"a\": 1}"}}]},{"role":"tool","content":"r"},{"role":"assistant","content":"a"}])");
  EXPECT_EQ(plain(turns.turns[0].target),
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call><|im_end|>\n");
  EXPECT_TRUE(plain(turns.turns[1].source)
                  .starts_with("<|im_start|>user\n<tool_response>\nr\n</tool_response>"));
}

TEST(ToolFormats, undefined_ones_are_refused) {
  const char* const kTools =
      R"({"tools":[{"name":"f"}],"messages":[{"role":"user","content":"q"}]})";
  EXPECT_THROW(render("glm4", kTools), DataError);
  EXPECT_THROW(render("deepseek4", kTools), DataError);
  EXPECT_THROW(render("qwen", R"({"tools":[{}],"messages":[{"role":"user","content":"q"}]})"),
               DataError);
  EXPECT_NO_THROW(render("qwen", kTools));
}

constexpr const char* kDeepSeekTools =
    R"({"system":"S","tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"messages":[
  {"role":"user","content":"q"},
  {"role":"assistant","content":"<think>why</think>","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"n\": 1.0, \"s\": \"x\"}"}},{"id":"b","function":{"name":"f","arguments":"bad"}}]},
  {"role":"tool","tool_call_id":"b","content":"second"},{"role":"tool","tool_call_id":"a","content":"first"},{"role":"user","content":"and?"},
  {"role":"assistant","content":"done","reasoning_content":"so"}]})";

TEST(DeepSeek4, joins_results_in_the_order_of_the_calls) {
  const Turns turns = render("deepseek4", kDeepSeekTools, {.thinking = Thinking::kOn});
  ASSERT_EQ(turns.turns.size(), 2u);
  EXPECT_TRUE(plain(turns.turns[0].source)
                  .starts_with("<｜begin▁of▁sentence｜>S\n\n## Tools\n\nYou have access"));
  EXPECT_NE(plain(turns.turns[0].source)
                .find("Schemas\n\n{\"name\": \"f\", \"parameters\": {}}\n\nYou MUST"),
            std::string::npos);
  // With tools no reasoning is dropped.
  EXPECT_EQ(
      plain(turns.turns[0].target),
      "why</think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n"
      "<｜DSML｜parameter name=\"n\" string=\"false\">1.0</｜DSML｜parameter>\n"
      "<｜DSML｜parameter name=\"s\" string=\"true\">x</｜DSML｜parameter>\n</｜DSML｜invoke>\n"
      "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"arguments\" "
      "string=\"true\">bad</｜DSML｜parameter>\n"
      "</｜DSML｜invoke>\n</｜DSML｜tool_calls><｜end▁of▁sentence｜>");
  EXPECT_EQ(plain(turns.turns[1].source),
            "<｜User｜><tool_result>first</tool_result>\n\n<tool_result>second</"
            "tool_result>\n\nand?<｜Assistant｜><think>");
  EXPECT_EQ(plain(turns.turns[1].target), "so</think>done<｜end▁of▁sentence｜>");
}

TEST(DeepSeek4, effort_tasks_and_open_questions) {
  const Turns open = render("deepseek4", R"([{"role":"user","content":"q"}])",
                            {.thinking = Thinking::kOn, .reasoning_effort = "max"});
  ASSERT_EQ(open.turns.size(), 1u);
  EXPECT_TRUE(plain(open.turns[0].source)
                  .starts_with("<｜begin▁of▁sentence｜>Reasoning Effort: Absolute maximum"));
  EXPECT_TRUE(plain(open.turns[0].source).ends_with("<｜User｜>q<｜Assistant｜><think>"));
  EXPECT_TRUE(open.turns[0].target.empty());
  const Turns task = render(
      "deepseek4",
      R"([{"role":"user","content":"q","task":"title"},{"role":"assistant","content":"T","reasoning_content":"r","wo_eos":true}])",
      {.thinking = Thinking::kOn});
  EXPECT_EQ(plain(task.turns[0].source), "<｜begin▁of▁sentence｜><｜User｜>q<｜title｜>");
  EXPECT_EQ(plain(task.turns[0].target), "T");
  EXPECT_THROW(
      render("deepseek4", R"([{"role":"user","content":"q"}])", {.reasoning_effort = "huge"}),
      ConfigError);
  EXPECT_THROW(render("deepseek4", R"([{"role":"user","content":"q","task":"cook"}])"), DataError);
  const Turns last = render(
      "deepseek4",
      R"([{"role":"user","content":"q"},{"role":"assistant","content":"a"},{"role":"user","content":"r"},{"role":"assistant","content":"b"}])",
      {.last_answer_only = true});
  ASSERT_EQ(last.turns.size(), 1u);
  EXPECT_EQ(plain(last.turns[0].source),
            "<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜></"
            "think>a<｜end▁of▁sentence｜><｜User｜>r<｜Assistant｜></think>");
}

void write(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::create_directories(path.parent_path());
  write_file_atomically(path, text, FileRole::kData);
}

std::string rendered(const TemporaryFolder& folder, const std::string& name = "",
                     bool tools = false) {
  const auto files = ModelTemplateFiles::read(folder.path());
  return ModelTemplate(files, name, tools).render({.messages = OrderedJson::array()}).text;
}

TEST(DeepSeek4, takes_a_default_system_text_where_the_conversation_has_none) {
  const TurnOptions options{.default_system = "S"};
  const auto source = [&](const char* json) {
    return to_text(render("deepseek4", json, options).turns[0].source, "", "");
  };
  EXPECT_EQ(source(R"([{"role":"user","content":"q"}])"),
            "<｜begin▁of▁sentence｜>S<｜User｜>q<｜Assistant｜></think>");
  EXPECT_EQ(source(R"([{"role":"system","content":"T"},{"role":"user","content":"q"}])"),
            "<｜begin▁of▁sentence｜>T<｜User｜>q<｜Assistant｜></think>");
}

TEST(ModelTemplates, are_read_from_every_form) {
  const TemporaryFolder folder;
  EXPECT_THROW(rendered(folder), DataError);
  write(folder / "chat_template.json", R"({"chat_template": "processor"})");
  EXPECT_EQ(rendered(folder), "processor");
  write(
      folder / "tokenizer_config.json",
      R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null, "add_bos_token": true, "chat_template": "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ add_bos_token is defined }}"})");
  EXPECT_EQ(rendered(folder), "<s></s>FalseFalse");
  write(
      folder / "tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]})");
  EXPECT_EQ(rendered(folder), "d");
  EXPECT_EQ(rendered(folder, "", true), "t");
  EXPECT_EQ(rendered(folder, "tool_use"), "t");
  EXPECT_THROW(rendered(folder, "tool_us"), ConfigError);
  write(folder / "chat_template.jinja", "file\n");
  EXPECT_EQ(rendered(folder), "file");
  write(folder / "additional_chat_templates" / "rag.jinja", "rag");
  EXPECT_EQ(rendered(folder, "rag"), "rag");
  write(folder / "tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_THROW(rendered(folder), DataError);
}

TEST(ModelTemplates, tell_which_tokens_the_assistant_says) {
  QIANLI_REQUIRE_DATA(folder, "tokenizers/qwen3");
  const auto tokenizer = Tokenizer::load(folder);
  const auto path = source_path("tests/golden/chat/templates/generation_spans.jinja");
  const ModelTemplate model({read_file(path, FileRole::kData), path.string()}, {});
  const auto json =
      R"([{"role":"user","content":"你好"},{"role":"assistant","content":"naïve 😀"},{"role":"user","content":"x"},{"role":"assistant","content":"end"}])";
  const auto text = model.render({.messages = parse_ordered_json(json, "test", FileRole::kData)});
  const auto ids = tokenizer->encode(text.text, false);
  const auto inside = tokens_in_ranges(tokenizer, ids, text.text, text.generations);
  std::vector<int32_t> said;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (inside[i]) said.push_back(ids[i]);
  }
  EXPECT_EQ(tokenizer->decode(said, false), "naïve 😀<|im_end|>end<|im_end|>");
}

}  // namespace
}  // namespace qianli::text::chat
