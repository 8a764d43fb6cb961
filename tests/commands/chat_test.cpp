// Conversations piped in, and texts generated in the ways that are no plain sampling.
#include <cmath>

#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

class ChatTest : public Workshop {
 protected:
  Result chat(const std::string& lines, const std::string& options = "",
              const std::string& chat_template = "default") const {
    write_text(path("lines"), lines);
    RunOptions bash = this->options();
    bash.program = "/bin/bash";
    const std::string command = program_path().string() + " chat " + model_ + " --template " +
                                chat_template + " --greedy -n 6 " + options + " < lines";
    return run({"-c", command}, bash);
  }
  void SetUp() override {
    Workshop::SetUp();
    if (engine_present()) model_ = trained("run").string();
  }
  Json generated(std::vector<std::string> more) const {
    std::vector<std::string> command{"generate", model_, "-n", "8", "--ignore-eos", "--json"};
    command.insert(command.end(), more.begin(), more.end());
    const Result result = qianli(command);
    expect_success(result);
    return Json::parse(result.out);
  }

  std::string model_;
};

TEST_F(ChatTest, LinesAreAnsweredAndConversationsSaved) {
  QIANLI_REQUIRE_ENGINE();
  const Result first = chat(
      "the cat\n/save talk.json\n/system be kind\nthe dog\\\nand more\n/save all.json\nq\nnever "
      "said\n");
  expect_success(first);
  EXPECT_NE(first.err.find("tokens/s"), std::string::npos);
  const Json talk = Json::parse(read_text(path("talk.json")));
  ASSERT_EQ(talk.size(), 2u);
  EXPECT_EQ(talk[0]["content"], "the cat");
  EXPECT_EQ(talk[1]["role"], "assistant");
  const Json all = Json::parse(read_text(path("all.json")));
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ(all[0]["content"], "be kind");
  EXPECT_EQ(all[3]["content"], "the dog\nand more");
  // A saved conversation goes on; its last answer is made anew; a new one begins.
  const Result again =
      chat("/regenerate\n/save again.json\nclear\nthe cat\n/save fresh.json\n", "--load talk.json");
  expect_success(again);
  EXPECT_EQ(Json::parse(read_text(path("again.json"))), talk);
  EXPECT_EQ(Json::parse(read_text(path("fresh.json"))), talk);
}

// The same words in a file of one's own make the same conversation, others another.
TEST_F(ChatTest, TemplatesOfAFileAreTaken) {
  QIANLI_REQUIRE_ENGINE();
  const auto of = [](const std::string& name, const std::string& question) {
    return Json{{"name", name}, {"format_user", {{"slots", {question}}}}};
  };
  write_text(path("own.json"), Json{of("same", "Human: {{content}}\nAssistant:"),
                                    of("other", "the dog {{content}} and")}
                                   .dump());
  const auto answer = [&](const std::string& chat_template) {
    expect_success(chat("the cat\n/save talk.json\n", "", chat_template));
    const Json talk = Json::parse(read_text(path("talk.json")));
    std::filesystem::remove(path("talk.json"));
    return talk.at(1)["content"].get<std::string>();
  };
  EXPECT_EQ(answer("own.json:same"), answer("default"));
  EXPECT_NE(answer("own.json:other"), answer("default"));
  expect_failure(chat("the cat\n", "", "own.json:third"), 2, {"third", "own.json"});
}

TEST_F(ChatTest, WhatCannotBeDoneIsSaid) {
  QIANLI_REQUIRE_ENGINE();
  expect_failure(chat("/regenerate\n"), 2, {"/regenerate"});
  expect_failure(chat("/dance\n"), 2, {"/dance", "/help"});
  expect_failure(chat("/load nothing.json\n"), 3, {"nothing.json"});
  expect_failure(chat("x\n", "--load lines"), 3, {"lines"});
}

TEST_F(ChatTest, BatchesBeamsChoicesAndStops) {
  QIANLI_REQUIRE_ENGINE();
  write_text(path("prompts.jsonl"), "\"the cat\"\n{\"prompt\": \"a dog\"}\n\n");
  const Json many =
      generated({"--prompt", "the cat", "--prompt-lines", "prompts.jsonl", "--log-probs", "2"});
  ASSERT_EQ(many.size(), 3u);
  EXPECT_EQ(many[0]["tokens"], many[1]["tokens"]);
  EXPECT_EQ(many[2]["prompt"], "a dog");
  EXPECT_EQ(many[2]["log_probs"].size(), 8u);
  EXPECT_EQ(many[2]["log_probs"][0]["top"].size(), 2u);
  EXPECT_EQ(generated({"--prompt", "a dog"})["tokens"], many[2]["tokens"]);

  // Weights in few bits.
  for (const char* bits : {"q8_0", "q4_0"}) {
    EXPECT_EQ(generated({"--prompt", "the cat", "--quantize", bits})["tokens"].size(), 8u);
  }
  expect_failure(qianli({"generate", model_, "--prompt", "x", "--quantize", "q2_0"}), 2, {"q2_0"});

  const Json beams = generated({"--prompt", "the cat", "--num-beams", "3"});
  ASSERT_EQ(beams["beams"].size(), 3u);
  EXPECT_EQ(beams["text"], beams["beams"][0]["text"]);
  EXPECT_GE(beams["beams"][0]["score"].get<double>(), beams["beams"][1]["score"].get<double>());

  const std::string chosen =
      generated({"--prompt", "x", "--choices", "the cat", "--choices", "a dog"})["text"];
  EXPECT_TRUE(chosen == "the cat" || chosen == "a dog") << chosen;

  const std::string whole = many[0]["text"];
  const std::string stop = whole.substr(whole.size() / 2, 2);
  EXPECT_EQ(generated({"--prompt", "the cat", "--stop", stop})["text"],
            whole.substr(0, whole.find(stop)));
  const std::string first = std::to_string(many[0]["tokens"][0].get<int64_t>());
  EXPECT_NE(generated({"--prompt", "the cat", "--logit-bias", first + "=-100"})["tokens"][0],
            many[0]["tokens"][0]);
  expect_failure(qianli({"generate", model_, "--prompt", "x", "--logit-bias", "5"}), 2,
                 {"ID=BIAS"});
}

// docs/inference.md, Adapters and Speculation.
TEST_F(ChatTest, AdaptersAndDrafts) {
  QIANLI_REQUIRE_ENGINE();
  expect_success(pretrain({"model=" + model_, "tune.method=lora", "optim.lr=0.5", "run.dir=lora"}));
  expect_success(qianli({"convert", "lora", "merged", "--to", "hf", "--dtype", "fp32"}));
  write_text(path("ids.json"), "[[1, 5, 9, 3, 7]]");
  const auto score = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "score");
    arguments.insert(arguments.end(), {"--tokens", "ids.json", "--json"});
    const Result result = qianli(arguments);
    expect_success(result);
    return Json::parse(result.out)["mean_nll"].get<double>();
  };
  const double attached = score({model_, "--adapter", "lora"});
  EXPECT_NEAR(attached, score({"merged"}), 1e-5);
  EXPECT_GT(std::abs(attached - score({model_})), 1e-3);
  EXPECT_EQ(
      generated({"--prompt", "the cat", "--adapter", "lora", "--num-beams", "2"})["beams"].size(),
      2u);
  expect_success(chat("the cat\n", "--adapter lora"));

  expect_failure(qianli({"generate", model_, "--prompt", "x", "--speculate", "2"}), 2,
                 {"multi-token prediction"});
  const std::string tiny = read_text(path("tiny.yaml"));
  write_text(path("tiny.yaml"),
             "model: {preset: ling-mini-2.0-16b, num_layers: 2, hidden_size: 32, ffn_hidden_size: "
             "64, num_attention_heads: 2, num_query_groups: 1, head_dim: 16, "
             "max_position_embeddings: 512, moe: {num_experts: 4, top_k: 2, num_groups: 1, "
             "topk_groups: 1, shared_ffn_hidden_size: 16, ffn_hidden_size: 16}, mtp: {num_layers: "
             "1}}\n" +
                 tiny.substr(tiny.find("data:")));
  expect_success(pretrain({"run.dir=heads", "train.steps=60", "checkpoint.every=60"}));
  model_ = path("heads").string();
  const Json plain = generated({"--prompt", "the cat", "--prompt", "a dog"});
  const Json drafted = generated({"--prompt", "the cat", "--prompt", "a dog", "--speculate", "2"});
  int64_t accepted = 0;
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(drafted[i]["tokens"], plain[i]["tokens"]);
    EXPECT_GT(drafted[i]["drafted_tokens"], 0);
    accepted += drafted[i]["accepted_tokens"].get<int64_t>();
  }
  EXPECT_GT(accepted, 0);
  const Result talk = chat("the cat\n", "--speculate 2");
  expect_success(talk);
  expect_failure(
      qianli({"generate", model_, "--prompt", "x", "--speculate", "2", "--num-beams", "2"}), 2,
      {"--speculate"});
}

}  // namespace
}  // namespace qianli::testing
