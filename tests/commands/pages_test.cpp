// The commands of the pages, as they stand there, and what they leave.
#include <httplib.h>
#include <signal.h>

#include "qianli/base/strings.h"
#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

class PagesTest : public Workshop {
 protected:
  // Every command of a page's shell blocks; what they print, in order.
  std::vector<std::string> run_page(const std::string& name, const std::string& lines = "") const {
    write_text(path("lines"), lines);
    std::vector<std::string> printed;
    for (const std::string& block : blocks_of(read_text(source_path("docs/" + name)), "sh")) {
      for (const std::string& command : commands_of(block)) {
        SCOPED_TRACE(command);
        const Result result = shell("exec < lines; " + command);
        expect_success(result);
        printed.push_back(result.out);
      }
    }
    return printed;
  }
  // A line each, or several where a line ends with a backslash.
  static std::vector<std::string> commands_of(const std::string& block) {
    std::vector<std::string> commands;
    bool goes_on = false;
    for (const std::string& line : split(block, '\n')) {
      if (line.empty()) continue;
      if (goes_on)
        commands.back() += "\n" + line;
      else
        commands.push_back(line);
      goes_on = line.ends_with('\\');
    }
    return commands;
  }
  // MODEL, with a chat template and a head that drafts, and ADAPTER, a run of adapters on it.
  void make_model_and_adapter() const {
    write_text(path("tokenizer/chat_template.jinja"),
               "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
               "{% if add_generation_prompt %}assistant:{% endif %}");
    const std::string tiny = read_text(path("tiny.yaml"));
    write_text(path("tiny.yaml"),
               "model: {preset: ling-mini-2.0-16b, num_layers: 2, hidden_size: 32, "
               "ffn_hidden_size: 64, num_attention_heads: 2, num_query_groups: 1, head_dim: 16, "
               "max_position_embeddings: 512, moe: {num_experts: 4, top_k: 2, num_groups: 1, "
               "topk_groups: 1, shared_ffn_hidden_size: 16, ffn_hidden_size: 16}, "
               "mtp: {num_layers: 1}}\n" +
                   tiny.substr(tiny.find("data:")));
    expect_success(pretrain({"run.dir=MODEL"}));
    expect_success(pretrain(
        {"model=MODEL", "tune.method=lora", "optim.lr=0.5", "train.steps=2", "run.dir=ADAPTER"}));
  }
};

TEST_F(PagesTest, Inference) {
  QIANLI_REQUIRE_ENGINE();
  make_model_and_adapter();
  write_text(path("prompts.jsonl"), "\"a dog\"\n{\"prompt\": \"the red house\"}\n");
  write_text(path("ids.json"), "[[1, 5, 9, 3, 7]]");
  const auto printed = run_page("inference.md", "the cat\n/save talk.json\nq\n");
  ASSERT_EQ(printed.size(), 7u);
  const Json many = Json::parse(printed[0]);
  ASSERT_EQ(many.size(), 3u);
  EXPECT_EQ(many[0]["log_probs"][0]["top"].size(), 2u);
  EXPECT_EQ(Json::parse(printed[2])["beams"].size(), 3u);
  EXPECT_NE(printed[4].find("perplexity"), std::string::npos) << printed[4];
  EXPECT_GT(Json::parse(printed[5])["drafted_tokens"], 0);
  const Json talk = Json::parse(read_text(path("talk.json")));
  EXPECT_EQ(talk[0]["content"], "be kind");
  EXPECT_EQ(talk.size(), 3u);
}

TEST_F(PagesTest, Lora) {
  QIANLI_REQUIRE_ENGINE();
  expect_success(pretrain({"train.steps=2", "checkpoint.hugging_face=true", "run.dir=first"}));
  fs::copy(path("first/hugging_face"), path("base"), fs::copy_options::recursive);
  const auto yaml = blocks_of(read_text(source_path("docs/lora.md")), "yaml");
  ASSERT_EQ(yaml.size(), 1u);
  const std::string tiny = read_text(path("tiny.yaml"));
  const auto section = [&](const std::string& name) {
    const size_t begin = tiny.find(name + ":");
    return tiny.substr(begin, tiny.find('\n', begin) + 1 - begin);
  };
  write_text(path("lora.yaml"), yaml[0] + section("data") + section("train") +
                                    section("precision") + section("device") + section("log") +
                                    "run: {dir: runs/lora}\n");
  EXPECT_EQ(run_page("lora.md").size(), 5u);
  for (const char* file : {"adapter/adapter_model.safetensors", "both/unmerge.safetensors",
                           "merged/model.safetensors"})
    EXPECT_TRUE(fs::exists(path(file))) << file;
  EXPECT_NE(read_text(path("both/model.safetensors")), read_text(path("base/model.safetensors")));
  EXPECT_EQ(read_text(path("apart/model.safetensors")), read_text(path("base/model.safetensors")));
}

TEST_F(PagesTest, InstructionData) {
  const std::string page = read_text(source_path("docs/instruction-data.md"));
  expect_success(qianli({"tokenizer", "train", "text.txt", "--vocab-size", "300", "--special",
                         "<|im_start|>", "<|im_end|>", "<user>", "<bot>", "--output", "qwen"}));
  const auto json = blocks_of(page, "json");
  ASSERT_EQ(json.size(), 2u);
  for (const char* folder : {"data", "data/b"}) fs::create_directory(path(folder));
  write_text(path("data/dataset_info.json"), json[1]);
  Json alpaca = Json::array(), questions = Json::array(), talks = Json::array();
  for (int i = 0; i < 20; ++i) {
    const std::string question = "what does the house see? " + std::to_string(i);
    alpaca.push_back({{"instruction", question}, {"input", ""}, {"output", "a cat"}});
    questions.push_back({{"question", question}, {"answer", "a dog"}});
    const Json asked{{"role", "human"}, {"content", question}};
    const Json said{{"role", "gpt"}, {"content", "a river"}};
    talks.push_back({{"conversations", {asked, said}}});
  }
  write_text(path("alpaca.json"), alpaca.dump());
  write_text(path("data/a.json"), questions.dump());
  write_text(path("data/b/b.json"), talks.dump());

  const auto printed = run_page("instruction-data.md");
  ASSERT_EQ(printed.size(), 4u);
  EXPECT_NE(printed[0].find("assistant\n]a cat<|im_end|>"), std::string::npos) << printed[0];
  EXPECT_NE(printed[2].find("a cat"), std::string::npos) << printed[2];
  EXPECT_EQ(Json::parse(read_text(path("out/alpaca_packed.json")))["counts"]["samples"], 20);
  const Result mixed = qianli({"data", "inspect", "out/mixed", "--tokenizer", "qwen"});
  expect_success(mixed);
  // The template of the page is one.
  write_text(path("own.json"), json[0]);
  const Result own = qianli(
      {"data", "inspect", "alpaca.json", "--template", "own.json:mine", "--tokenizer", "qwen"});
  expect_success(own);
  EXPECT_NE(own.out.find("<bot>]a cat"), std::string::npos) << own.out;
}

TEST_F(PagesTest, Serving) {
  QIANLI_REQUIRE_ENGINE();
  make_model_and_adapter();
  fs::copy(path("ADAPTER"), path("OTHER"), fs::copy_options::recursive);
  const auto blocks = blocks_of(read_text(source_path("docs/serving.md")), "sh");
  ASSERT_EQ(blocks.size(), 3u);
  for (const std::string& command : {blocks[0], blocks[2]}) {
    SCOPED_TRACE(command);
    // Any free port in the place of the page's.
    const bool fixed = command.find("--port 8000") != std::string::npos;
    const std::string line =
        command.substr(0, command.find(fixed ? " --port" : "\n")) + " --port 0";
    RunOptions bash = options();
    bash.environment["PATH"] = program_path().parent_path().string() + ":" + std::getenv("PATH");
    bash.program = "/bin/bash";
    bash.standard_output = path("url");
    write_text(path("url"), "");
    Program server({"-c", "exec " + line}, bash);
    std::string url;
    ASSERT_TRUE(server.wait_for([&] {
      url = read_text(path("url"));
      return url.ends_with("/\n");
    })) << server.finish().err;
    const std::string port = url.substr(url.rfind(':') + 1, url.size() - 2 - url.rfind(':') - 1);
    httplib::Client client("127.0.0.1", std::stoi(port));
    const Json models = Json::parse(client.Get("/v1/models")->body)["data"];
    ASSERT_EQ(models.size(), fixed ? 1u : 3u);
    EXPECT_EQ(models[0]["id"], "MODEL");
    if (!fixed) {
      EXPECT_EQ(models[2]["id"], "brief");
    }
    // curl's path and body.
    const size_t address = blocks[1].find("/v1"), body = blocks[1].find('{');
    const auto answer =
        client.Post(blocks[1].substr(address, blocks[1].find(' ', address) - address),
                    blocks[1].substr(body, blocks[1].rfind('}') + 1 - body), "application/json");
    EXPECT_EQ(Json::parse(answer->body)["object"], "chat.completion") << answer->body;
    server.send(SIGTERM);
    EXPECT_EQ(server.finish().code, 0);
  }
}

}  // namespace
}  // namespace qianli::testing
