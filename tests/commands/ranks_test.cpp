// Several ranks as real processes: they train as one does, and what happens to one of them happens
// to the job.
#include <signal.h>

#include <fstream>

#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

constexpr int64_t kSteps = 24;

class RanksTest : public Workshop {
 protected:
  // `qianli launch`, each rank leaving its process number in pid.RANK. `extra` may use $RANK.
  Result launch(const std::string& run, const std::string& extra = {}, int ranks = 2) const {
    return testing::run(words(run, extra, ranks), options());
  }
  std::unique_ptr<Program> start(const std::string& run, const std::string& extra = {}) const {
    for (const char* file : {"pid.0", "pid.1"}) fs::remove(path(file));
    return std::make_unique<Program>(words(run, extra, 2), options());
  }
  static std::vector<std::string> words(const std::string& run, const std::string& extra, int ranks,
                                        int restarts = 0) {
    const std::string script = "echo $$ > pid.$RANK; exec " + program_path().string() +
                               " pretrain tiny.yaml device=cpu train.micro_batch_size=2 "
                               "train.global_batch_size=8 precision=fp64"
                               " checkpoint.every=3 train.steps=" +
                               std::to_string(kSteps) + " run.dir=" + run + " " + extra;
    return {"launch",
            "--nproc",
            std::to_string(ranks),
            "--max-restarts",
            std::to_string(restarts),
            "--grace",
            "2",
            "--",
            "sh",
            "-c",
            script};
  }
  pid_t process(int rank) const {
    std::ifstream file(path("pid." + std::to_string(rank)));
    pid_t process = -1;
    file >> process;
    return process;
  }

  void expect_near(const std::string& run, const std::string& reference, double tolerance) const {
    const auto expected = read_metrics(path(reference)), actual = read_metrics(path(run));
    ASSERT_EQ(expected.size(), static_cast<size_t>(kSteps));
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      for (const char* field : {"loss", "grad_norm"}) {
        const double value = expected[i].at(field).get<double>();
        EXPECT_NEAR(actual[i].at(field).get<double>(), value, tolerance * value)
            << field << " of step " << i + 1;
      }
      EXPECT_EQ(actual[i].at("tokens"), expected[i].at("tokens"));
    }
  }
  // Interferes after step 5, then lets the same command go on.
  void disturb(const std::string& run, const std::string& extra,
               const std::function<void(const Program&)>& disturbance,
               const std::function<void(const Result&)>& check) const {
    Result result;
    for (int attempt = 0; attempt < 5 && result.code <= 0;
         ++attempt) {  // 0: it was too fast for us
      fs::remove_all(path(run));
      const auto program = start(run, extra);
      ASSERT_TRUE(program->wait_for([&] { return last_step(path(run)) >= 5; }));
      disturbance(*program);
      result = program->finish();
    }
    check(result);
    // However short the deadline was: a busy machine may be slow.
    expect_success(launch(run, extra + " parallel.timeout_seconds=120"));
  }
};

TEST_F(RanksTest, TrainAsOneRankDoes) {
  QIANLI_REQUIRE_ENGINE();
  expect_success(launch("one", "", 1));
  expect_success(launch("two"));
  expect_near("two", "one", 1e-10);
  expect_success(launch("zero", "parallel.zero=1 parallel.bucket_elements=5000", 4));
  expect_near("zero", "one", 1e-10);
}

TEST_F(RanksTest, StagesTrainAsOneRankDoesAndGoOnFromEachOthersCheckpoints) {
  QIANLI_REQUIRE_ENGINE();
  const std::string model =
      "model.num_layers=4 train.eval_every=6 data.validation_path=text.txt train.eval_batches=2 ";
  expect_success(launch("one", model, 1));
  expect_success(launch("stages", model + "parallel.pipeline=2 parallel.schedule=zb-h1"));
  expect_near("stages", "one", 1e-10);
  expect_success(launch("folded",
                        model + "parallel.pipeline=2 parallel.schedule=dualpipev parallel.zero=1 "
                                "train.micro_batch_size=1 "
                                "checkpoint.resume=stages/checkpoints/step_12",
                        4));
  const auto expected = read_metrics(path("one")), stages = read_metrics(path("stages")),
             folded = read_metrics(path("folded"));
  ASSERT_EQ(folded.size(), static_cast<size_t>(kSteps / 2));
  for (const char* field : {"loss", "grad_norm", "validation_loss"}) {
    const double value = expected.back().at(field).get<double>();
    EXPECT_NEAR(stages.back().at(field).get<double>(), value, 1e-10 * value) << field;
    EXPECT_NEAR(folded.back().at(field).get<double>(), value, 1e-10 * value) << field;
  }
}

TEST_F(RanksTest, ALayoutThatDoesNotFitIsRefusedWithOneThatDoes) {
  QIANLI_REQUIRE_ENGINE();
  const Result layers = launch("refused", "model.num_layers=4 parallel.pipeline=3", 3);
  EXPECT_EQ(layers.code, 2) << layers.err;
  EXPECT_NE(layers.err.find("nearest: parallel.pipeline="), std::string::npos) << layers.err;
  const Result microbatches =
      launch("refused",
             "model.num_layers=4 parallel.pipeline=2 parallel.pipeline_chunks=2 "
             "train.micro_batch_size=8");
  EXPECT_EQ(microbatches.code, 2) << microbatches.err;
  EXPECT_NE(microbatches.err.find("nearest that fits: 2 microbatches"), std::string::npos)
      << microbatches.err;
}

TEST_F(RanksTest, AKilledRankEndsTheJobWhichGoesOnFromItsCheckpoint) {
  QIANLI_REQUIRE_ENGINE();
  expect_success(launch("straight", "parallel.zero=1"));
  disturb(
      "killed", "parallel.zero=1", [&](const Program&) { ::kill(process(1), SIGKILL); },
      [](const Result& result) {
        EXPECT_EQ(result.code, 128 + SIGKILL);
        EXPECT_NE(result.err.find("rank 1"), std::string::npos) << result.err;
      });
  expect_near("killed", "straight", 0);
}

TEST_F(RanksTest, AJobStartsAgainByItselfFromItsCheckpoint) {
  QIANLI_REQUIRE_ENGINE();
  expect_success(launch("straight"));
  Result result;
  for (int attempt = 0; attempt < 5; ++attempt) {  // again where the job was too fast for us
    for (const char* file : {"pid.0", "pid.1"}) fs::remove(path(file));
    fs::remove_all(path("again"));
    Program program(words("again", "", 2, /*restarts=*/1), options());
    ASSERT_TRUE(program.wait_for([&] { return last_step(path("again")) >= 5; }));
    ::kill(process(1), SIGKILL);
    result = program.finish();
    if (result.err.find("restart 1 of 1") != std::string::npos) break;
  }
  expect_success(result);
  EXPECT_NE(result.err.find("restart 1 of 1"), std::string::npos) << result.err;
  expect_near("again", "straight", 0);
}

TEST_F(RanksTest, AKilledRankOfAnyLayoutEndsTheJobWhichGoesOn) {
  QIANLI_REQUIRE_ENGINE();
  int number = 0;
  for (const std::string layout : {"parallel.tensor=2 parallel.sequence=true", "parallel.context=2",
                                   "model.num_layers=4 parallel.pipeline=2"}) {
    const std::string run = std::to_string(++number);
    expect_success(launch("straight" + run, layout));
    disturb(
        "killed" + run, layout, [&](const Program&) { ::kill(process(1), SIGKILL); },
        [](const Result& result) {
          EXPECT_EQ(result.code, 128 + SIGKILL);
          EXPECT_NE(result.err.find("rank 1"), std::string::npos) << result.err;
        });
    expect_near("killed" + run, "straight" + run, 0);
  }
}

TEST_F(RanksTest, AStoppedRankIsNoticedWithinTheTimeoutAndNamedWithWhatItDid) {
  QIANLI_REQUIRE_ENGINE();
  int number = 0;
  for (const std::string layout :
       {"parallel.zero=1", "parallel.tensor=2", "model.num_layers=4 parallel.pipeline=2"}) {
    const std::string run = std::to_string(++number);
    expect_success(launch("straight" + run, layout));
    disturb(
        "hung" + run, layout + " parallel.timeout_seconds=3",
        [&](const Program&) { ::kill(process(1), SIGSTOP); },
        [](const Result& result) {
          EXPECT_EQ(result.code, 69) << result.err;
          EXPECT_NE(result.err.find("rank 0: step "), std::string::npos) << result.err;
          const size_t lost = result.err.find("rank 1: step ");
          ASSERT_NE(lost, std::string::npos) << result.err;
          EXPECT_NE(result.err.find("not heard of for ", lost), std::string::npos) << result.err;
        });
    expect_near("hung" + run, "straight" + run, 0);
  }
}

// The rank that keeps what the others said is the one that hangs.
TEST_F(RanksTest, AStoppedFirstRankIsNoticed) {
  QIANLI_REQUIRE_ENGINE();
  expect_success(launch("straight"));
  disturb(
      "hung", "parallel.timeout_seconds=3", [&](const Program&) { ::kill(process(0), SIGSTOP); },
      [](const Result& result) {
        EXPECT_EQ(result.code, 69) << result.err;
        EXPECT_NE(result.err.find("rank 0, which keeps it, does not answer"), std::string::npos)
            << result.err;
      });
  expect_near("hung", "straight", 0);
}

TEST_F(RanksTest, ASlowRankIsWaitedFor) {
  QIANLI_REQUIRE_ENGINE();
  expect_success(launch("straight"));
  fs::remove_all(path("slow"));
  const auto program = start("slow", "");
  const auto state = [&] {
    std::ifstream file("/proc/" + std::to_string(process(1)) + "/stat");
    std::string number, name, state;
    file >> number >> name >> state;
    return state;
  };
  int pauses = 0;
  for (int64_t step = 1; step < kSteps - 2; ++step) {
    ASSERT_TRUE(program->wait_for([&] { return last_step(path("slow")) >= step; }));
    ::kill(process(1), SIGSTOP);
    if (program->wait_for([&] { return state() == "T" || state() == "Z" || state().empty(); }))
      pauses += state() == "T";
    ::kill(process(1), SIGCONT);
  }
  EXPECT_GT(pauses, 0);
  expect_success(program->finish());
  expect_near("slow", "straight", 0);
}

TEST_F(RanksTest, CtrlCSavesOnAllRanks) {
  QIANLI_REQUIRE_ENGINE();
  expect_success(launch("straight"));
  disturb(
      "stopped", "", [](const Program& program) { program.send(SIGTERM); },
      [](const Result& result) {
        EXPECT_EQ(result.code, 75) << result.err;
        EXPECT_NE(result.err.find("everything saved"), std::string::npos) << result.err;
      });
  expect_near("stopped", "straight", 0);
}

TEST_F(RanksTest, OtherConfigurationsOrNumbersThatAreNoneEndAllRanks) {
  QIANLI_REQUIRE_ENGINE();
  const Result different = launch("different", "train.seed=$RANK");
  EXPECT_EQ(different.code, 2);
  EXPECT_NE(different.err.find("'  seed: 0' as on rank 0, got '  seed: 1' on rank 1"),
            std::string::npos)
      << different.err;
  for (const char* layout : {"", " parallel.tensor=2", " parallel.context=2"}) {
    const Result infinite =
        launch("infinite", std::string("optim.lr=1e300 optim.warmup_steps=0") + layout);
    EXPECT_EQ(infinite.code, 5) << layout << ": " << infinite.err;
  }
}

bool holds(const Result& result, const std::string& words) {
  return (result.out + result.err).find(words) != std::string::npos;
}

TEST_F(RanksTest, refuses_devices_that_are_not_there) {
  for (const auto& [device, reason] :
       {std::pair{"npu", "expected an NPU, got none"}, {"cuda", "expected a CUDA device"}}) {
    const Result result = launch(device, std::string("device=") + device);
    if (result.code == 0) GTEST_SKIP() << "here are two of them";
    EXPECT_EQ(result.code, 2) << result.err;
    EXPECT_TRUE(holds(result, reason) || holds(result, "expected a device for each")) << result.err;
    EXPECT_FALSE(fs::exists(path(device)));
  }
}

TEST_F(RanksTest, knows_the_groups_whose_communicators_are_asked_for) {
  const Result unknown = launch("unknown", "train.steps=1 'parallel.communicators=tensr:ctas=4'");
  EXPECT_EQ(unknown.code, 2) << unknown.err;
  EXPECT_TRUE(holds(unknown, "groups of this layout (data), got 'tensr'")) << unknown.err;
  const Result known = launch("known", "train.steps=1 'parallel.communicators=data:ctas=4;tp:200'");
  expect_success(known);
  EXPECT_TRUE(holds(known, "parallel.communicators has no effect: Gloo")) << known.err;
}

}  // namespace
}  // namespace qianli::testing
