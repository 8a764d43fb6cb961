// Two of a kind: equal or not, told by text, JSON and exit code.
#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

class CompareTest : public Workshop {
 protected:
  static std::string golden(const char* name) {
    return source_path(std::string("tests/golden/models/") + name).string();
  }

  // A run of `steps` steps with a checkpoint of its last.
  void make_run(const std::string& name, const std::string& parallel, double last_loss = 2.25,
                int steps = 4) {
    fs::create_directories(path(name + "/checkpoints"));
    write_text(path(name + "/config.yaml"), "train: {steps: 4, seed: 1}\nparallel: {" + parallel +
                                                "}\nrun: {dir: " + name + "}\n");
    std::string metrics;
    for (int step = 1; step <= steps; ++step) {
      const double loss = step == 4 ? last_loss : 2.5;
      metrics += Json{{"step", step}, {"loss", loss}, {"step_seconds", name.size()}}.dump() + "\n";
    }
    write_text(path(name + "/metrics.jsonl"), metrics);
    const std::string checkpoint = name + "/checkpoints/step_4";
    expect_success(qianli({"convert", golden("llama2"), checkpoint, "--to", "qianli"}));
  }
};

void expect_out(const Result& result, int code, const std::vector<std::string>& words) {
  EXPECT_EQ(result.code, code) << result.out << result.err;
  for (const std::string& word : words)
    EXPECT_NE(result.out.find(word), std::string::npos) << word << "\n" << result.out;
}

TEST_F(CompareTest, RunsOfTwoLayoutsAreEqual) {
  make_run("one", "zero: 1");
  make_run("another", "zero: 0");
  const Result result = qianli({"compare", "one", "another"});
  expect_out(result, 0,
             {"Equal: A = one, B = another", "Layouts differ", "parallel.zero", "A 1, B 0",
              "Metrics are equal on 4 common steps", "are equal bit for bit"});
  EXPECT_EQ(result.out.find("run.dir"), std::string::npos) << result.out;
  const Json json = Json::parse(qianli({"compare", "one", "another", "--json"}).out);
  EXPECT_EQ(json["equal"], true);
  EXPECT_EQ(json["settings"][0]["layout"], true);
  EXPECT_EQ(json["metrics"]["steps"], 4);
  EXPECT_EQ(json["models"]["differing"], 0);
}

TEST_F(CompareTest, ALossThatDiffersIsTold) {
  make_run("one", "zero: 1");
  make_run("two", "zero: 1", 2.5);
  expect_out(
      qianli({"compare", "one", "two"}), 1,
      {"Different: A = one", "Metrics differ first at step 4, loss: A 2.25, B 2.5, relative 0.1"});
  expect_out(qianli({"compare", "one", "two", "--tolerance", "0.1"}), 0, {"Equal within 0.1"});
  const Json json = Json::parse(qianli({"compare", "one", "two", "--json"}).out);
  EXPECT_EQ(json["equal"], false);
  EXPECT_EQ(json["metrics"]["keys"][0]["first_step"], 4);
  EXPECT_EQ(json["metrics"]["growth"][0]["loss"]["b"], 2.5);
  make_run("short", "zero: 1", 2.25, 3);
  expect_out(qianli({"compare", "one", "short"}), 1, {"Only A has 1 step: 4 to 4"});
}

TEST_F(CompareTest, OneBitOfAModelIsTold) {
  const std::string source = golden("llama2");
  fs::copy(source, path("copy"));
  expect_out(qianli({"compare", source, "copy"}), 0, {"Equal: A = ", "Hugging Face folder"});
  std::string bytes = read_text(path("copy/model.safetensors"));
  bytes.back() = static_cast<char>(bytes.back() ^ 0x40);
  write_text(path("copy/model.safetensors"), bytes);
  expect_out(qianli({"compare", source, "copy"}), 1,
             {"Tensors differ first in ", "14 of 15 tensors are equal", " at ["});
  const Json json = Json::parse(qianli({"compare", source, "copy", "--json"}).out);
  EXPECT_EQ(json["models"]["differing"], 1);
  EXPECT_EQ(json["models"]["first"]["differing"], 1);
  EXPECT_EQ(json["models"]["first"], json["models"]["worst"][0]);
}

TEST_F(CompareTest, ARunBesideAModelIsItsLastCheckpoint) {
  make_run("one", "zero: 1");
  expect_out(qianli({"compare", "one", golden("llama2")}), 0, {"step_4", "Hugging Face folder"});
  expect_out(qianli({"compare", golden("llama1"), "one"}), 1, {"The models differ"});
  fs::remove_all(path("one/checkpoints"));
  expect_failure(qianli({"compare", "one", golden("llama2")}), 2,
                 {"[compare]", "two runs or two models", "without a checkpoint"});
  expect_out(qianli({"compare", "one", "one"}), 0, {"no checkpoint in common"});
}

TEST_F(CompareTest, WhatCannotBeComparedIsRefused) {
  make_run("one", "zero: 1");
  expect_failure(qianli({"compare", "one", "none"}), 6, {"[compare]", "run or a model", "none"});
  expect_failure(qianli({"compare", "one"}), 2, {"B"});
  for (const char* tolerance : {"-1", "nan", "inf"})
    expect_failure(qianli({"compare", "one", "one", "--tolerance", tolerance}), 2, {"--tolerance"});
  make_run("two", "zero: 1");
  write_text(path("two/metrics.jsonl"), "{\"step\":1,\n{\"step\":2}\n");
  expect_failure(qianli({"compare", "one", "two"}), 3, {"two/metrics.jsonl line 1"});
  write_text(path("two/metrics.jsonl"), "{\"step\":1,\"loss\":1e999}\n");
  expect_failure(qianli({"compare", "one", "two"}), 3, {"two/metrics.jsonl line 1"});
}

}  // namespace
}  // namespace qianli::testing
