// Plans need no device, no model and no data.
#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

using PlanTest = Workshop;

TEST_F(PlanTest, SchedulesAreComparedBestFirst) {
  const Result result = qianli({"plan", "schedule", "--stages", "4", "--microbatches", "8"});
  expect_success(result);
  EXPECT_NE(result.out.find("8 microbatches through 4 stages"), std::string::npos) << result.out;
  EXPECT_LT(result.out.find("nanopipe"), result.out.find("1f1b"));
  const Json list = Json::parse(
      qianli({"plan", "schedule", "--stages", "2", "--microbatches", "2", "--json"}).out);
  for (const Json& entry : list) EXPECT_NE(entry["kind"], "dualpipev");  // needs 3 microbatches
}

TEST_F(PlanTest, AScheduleIsDrawn) {
  const Result result = qianli({"plan", "schedule", "--kind", "1f1b", "--stages", "2",
                                "--microbatches", "2", "--draw", "schedule.svg"});
  expect_success(result);
  for (const char* words : {"1F1B: 2 stages, 2 microbatches", "stage 0 F0 F1 ······B0─── ···B1─── ",
                            "stage 1 ···F0 B0─── F1 B1─── ······", "makespan  9",
                            "bubble    33.3 %", "peak      2 1 "}) {
    EXPECT_NE(result.out.find(words), std::string::npos) << words << "\n" << result.out;
  }
  EXPECT_TRUE(read_text(path("schedule.svg")).starts_with("<svg"));
}

TEST_F(PlanTest, NumbersAndInstructionsAreJson) {
  const Result result =
      qianli({"plan", "schedule", "--kind", "interleaved", "--chunks", "2", "--json"});
  expect_success(result);
  const Json json = Json::parse(result.out);
  EXPECT_DOUBLE_EQ(json["makespan"], 28.5);
  EXPECT_DOUBLE_EQ(json["ideal"], 24);
  EXPECT_EQ(json["peak_activations"], Json({11, 9, 7, 5}));
  EXPECT_EQ(json["flow"][4], (Json{{"stage", 0}, {"chunk", 1}}));
  ASSERT_EQ(json["programs"].size(), 4u);
  const Json& second = json["programs"][1];
  EXPECT_EQ(second[2]["op"], "receive_activation");
  EXPECT_EQ(second[2]["peer"], 0);
  EXPECT_EQ(second[3]["op"], "forward");
  EXPECT_DOUBLE_EQ(second[3]["begin"], 0.5);
}

TEST_F(PlanTest, TimesDecideTheBubble) {
  const auto makespan = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"plan", "schedule", "--kind", "1f1b", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return Json::parse(qianli(words).out)["makespan"].get<double>();
  };
  EXPECT_DOUBLE_EQ(makespan({"--times", "2,1,1"}), 11 * 4.0);
  EXPECT_GT(makespan({"--times", "1,1,1,0.1"}), 33.0);
  EXPECT_GT(makespan({"--times", "1,1,1,0.1", "--messages", "blocking"}),
            makespan({"--times", "1,1,1,0.1"}));
}

TEST_F(PlanTest, AConfigurationSaysItsSchedule) {
  const std::vector<std::string> words = {"plan", "tiny.yaml", "train.micro_batch_size=2",
                                          "train.global_batch_size=12"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = words;
    all.insert(all.end(), more.begin(), more.end());
    return qianli(all);
  };
  const Result result = with({"--ranks", "2", "--draw-schedule", "schedule.svg"});
  expect_success(result);
  for (const char* text :
       {"2 ranks: data 2", "12 sequences a step: 3 microbatches of 2 on each data-parallel rank",
        "1F1B: 1 stage, 3 microbatches", "stage 0 F0 B0"}) {
    EXPECT_NE(result.out.find(text), std::string::npos) << text << "\n" << result.out;
  }
  const std::string picture = read_text(path("schedule.svg"));
  EXPECT_TRUE(picture.starts_with("<svg"));
  EXPECT_NE(picture.find("1F1B: 1 stage, 3 microbatches"), std::string::npos);
  const Json json = Json::parse(with({"--json"}).out);
  EXPECT_EQ(json["layout"]["ranks"], 1);
  EXPECT_EQ(json["layout"]["microbatches"], 6);
  EXPECT_EQ(json["schedule"]["stages"], json["layout"]["pipeline"]);
  EXPECT_EQ(json["schedule"]["microbatches"], 6);
  expect_failure(with({"--ranks", "4"}), 2, {"[plan]", "global_batch_size", "ranks (4)", "got 12"});
  expect_failure(with({"--ranks", "0"}), 2, {"--ranks"});
  expect_failure(with({"parallel.pipelin=2"}), 2, {"did you mean 'parallel.pipeline'"});
  expect_failure(qianli({"plan", "none.yaml"}), 2, {"none.yaml"});
}

TEST_F(PlanTest, WhatDoesNotFitIsAUsageError) {
  expect_failure(qianli({"plan", "schedule", "--kind", "1f1bb"}), 2,
                 {"[schedule]", "did you mean '1f1b'"});
  expect_failure(qianli({"plan", "schedule", "--kind", "interleaved"}), 2, {"2 chunks", "got 1"});
  expect_failure(qianli({"plan", "schedule", "--kind", "dualpipev", "--microbatches", "3"}), 2,
                 {"at least 7 microbatches"});
  for (const char* times : {"", "1,1,x", "1,-1,1", "0,1,1", "1,1,1,0,1,1", "nan,1,1", "1e300,1,1"})
    expect_failure(qianli({"plan", "schedule", "--kind", "1f1b", "--times", times}), 2,
                   {"--times"});
  expect_failure(qianli({"plan", "schedule", "--draw", "x.svg"}), 2, {"--kind"});
  expect_failure(qianli({"plan", "schedule", "--kind", "1f1b", "--draw", "no/such/folder.svg"}), 3,
                 {"folder.svg"});
  expect_failure(qianli({"plan"}), 2, {"qianli plan --help"});
}

}  // namespace
}  // namespace qianli::testing
