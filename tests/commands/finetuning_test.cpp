// The commands of docs/finetuning.md, as they stand there, and what they leave.
#include <algorithm>

#include "qianli/base/strings.h"
#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

class FinetuningTest : public Workshop {
 protected:
  void SetUp() override {
    Workshop::SetUp();
    std::string rows;
    const char* answers[] = {"the cat walks.", "the dog runs.", "a river and a mountain."};
    for (int i = 0; i < 48; ++i) {
      rows += Json({{"instruction", "what does the house see?"},
                    {"input", i % 2 == 0 ? "" : "over the river"},
                    {"output", answers[i % 3]}})
                  .dump() +
              "\n";
    }
    write_text(path("chats.jsonl"), rows);
  }
  // A model and the page's configuration, which is for a tiny model on the CPU here.
  void prepare(const std::string& page) {
    expect_success(pretrain({"train.steps=2", "checkpoint.hugging_face=true", "run.dir=first"}));
    fs::copy(path("first/hugging_face"), path("model"), fs::copy_options::recursive);
    const auto yaml = blocks_of(page, "yaml");
    ASSERT_EQ(yaml.size(), 1u);
    write_text(path("sft.yaml"),
               yaml[0] + "device: cpu\nprecision: fp32\nlog: {peak_tflops: 0.1}\n");
  }
};

TEST_F(FinetuningTest, CommandsOfThePageRun) {
  QIANLI_REQUIRE_ENGINE();
  const std::string page = read_text(source_path("docs/finetuning.md"));
  prepare(page);
  int commands = 0;
  for (const std::string& block : blocks_of(page, "sh")) {
    for (const std::string& line : split(block, '\n')) {
      if (line.empty()) continue;
      SCOPED_TRACE(line);
      expect_success(shell(line));
      ++commands;
    }
  }
  EXPECT_EQ(commands, 8);

  const auto metrics = read_metrics(path("runs/sft"));
  ASSERT_FALSE(metrics.empty());
  const Json& last = metrics.back();
  EXPECT_EQ(last.at("epoch"), 3.0);
  EXPECT_LT(last.at("loss").get<double>(), metrics.front().at("loss").get<double>());
  EXPECT_GT(last.at("token_accuracy").get<double>(),
            metrics.front().at("token_accuracy").get<double>());
  EXPECT_GT(last.at("trained_tokens").get<int64_t>(), 0);
  EXPECT_LE(last.at("trained_tokens").get<int64_t>(), last.at("tokens").get<int64_t>());
  size_t validations = 0;
  for (const Json& step : metrics) validations += step.contains("validation_token_accuracy");
  EXPECT_EQ(validations, metrics.size() / 5);
  const std::string log = read_text(path("runs/sft/log.txt"));
  EXPECT_NE(log.find("48 samples of 48 rows"), log.npos) << log;
  EXPECT_NE(log.find("3 epochs = "), log.npos) << log;
  // Prepared apart the samples are the same, and on two ranks the losses are.
  for (const char* other : {"runs/prepared", "runs/two"}) {
    const auto same = read_metrics(path(other));
    ASSERT_EQ(same.size(), metrics.size()) << other;
    for (size_t i = 0; i < metrics.size(); ++i) {
      const double loss = metrics[i].at("loss").get<double>();
      EXPECT_NEAR(same[i].at("loss").get<double>() / loss, 1.0, 1e-4) << other << ", " << i;
    }
  }
}

TEST_F(FinetuningTest, GoesOnAsIfItHadNotStopped) {
  QIANLI_REQUIRE_ENGINE();
  prepare(read_text(source_path("docs/finetuning.md")));
  const std::vector<std::string> command = {"sft", "sft.yaml", "train.epochs=0",
                                            "train.neftune_alpha=5", "optim.decay_steps=8"};
  const auto sft = [&](std::vector<std::string> more) {
    more.insert(more.begin(), command.begin(), command.end());
    return qianli(more);
  };
  expect_success(sft({"train.steps=8", "run.dir=whole"}));
  expect_success(sft({"train.steps=3", "run.dir=parts"}));
  expect_success(sft({"train.steps=8", "run.dir=parts"}));
  const auto whole = read_metrics(path("whole")), parts = read_metrics(path("parts"));
  ASSERT_EQ(whole.size(), 8u);
  ASSERT_EQ(parts.size(), 8u);
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const char* key : {"loss", "grad_norm", "tokens_seen", "token_accuracy"})
      EXPECT_EQ(whole[i].at(key), parts[i].at(key)) << key << " of step " << i + 1;
  }
}

TEST_F(FinetuningTest, WhatMakesNoSenseIsSaid) {
  QIANLI_REQUIRE_ENGINE();
  prepare(read_text(source_path("docs/finetuning.md")));
  expect_failure(qianli({"sft", "sft.yaml", "train.steps=5"}), 2, {"train.steps or train.epochs"});
  expect_failure(qianli({"sft", "sft.yaml", "data.path=nowhere.jsonl"}), 3, {"nowhere.jsonl"});
  expect_failure(qianli({"sft", "sft.yaml", "data.template=alpacca"}), 2,
                 {"did you mean 'alpaca'"});
  expect_failure(qianli({"sft", "sft.yaml", "data.sequence_length=4"}), 3, {"expected samples"});
  expect_failure(qianli({"pretrain", "tiny.yaml", "train.steps=0", "train.epochs=1"}), 2,
                 {"expected train.steps for pretraining"});
  const Result without = qianli({"pretrain", "tiny.yaml", "data.packing=greedy"});
  expect_success(without);
  EXPECT_NE(without.err.find("data.packing without effect"), std::string::npos) << without.err;
}

}  // namespace
}  // namespace qianli::testing
