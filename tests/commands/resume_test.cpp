// A run that was stopped, or killed, and started again ends with the bits of one that never was.
#include <signal.h>

#include <random>

#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

constexpr int64_t kSteps = 24;

// Steps that take some milliseconds, so that there is time to interfere.
class ResumeTest : public Workshop {
 protected:
  std::vector<std::string> arguments(const std::string& run) const {
    return {"pretrain",
            "tiny.yaml",
            "model.hidden_size=128",
            "model.ffn_hidden_size=512",
            "model.num_layers=2",
            "data.sequence_length=128",
            "train.micro_batch_size=4",
            "train.global_batch_size=8",
            "train.steps=" + std::to_string(kSteps),
            "train.attention_dropout=0.1",
            "train.hidden_dropout=0.1",
            "train.embedding_dropout=0.1",
            "checkpoint.every=3",
            "run.dir=" + run};
  }
  RunOptions two_threads() const {
    RunOptions wanted = options();
    wanted.environment["QIANLI_THREADS"] = "2";
    return wanted;
  }
  Result train(const std::string& run) const { return testing::run(arguments(run), two_threads()); }
  std::unique_ptr<Program> start(const std::string& run) const {
    return std::make_unique<Program>(arguments(run), two_threads());
  }

  void expect_same_end(const std::string& run, const std::string& reference) const {
    const std::string last = "checkpoints/step_" + std::to_string(kSteps);
    size_t files = 0;
    for (const auto& entry : fs::directory_iterator(path(reference) / last)) {
      if (entry.path().extension() != ".safetensors") continue;
      ++files;
      EXPECT_TRUE(read_text(entry.path()) == read_text(path(run) / last / entry.path().filename()))
          << entry.path().filename() << " differs";
    }
    EXPECT_EQ(files, 2u);  // weights and optimizer states
    const auto expected = read_metrics(path(reference)), actual = read_metrics(path(run));
    ASSERT_EQ(expected.size(), static_cast<size_t>(kSteps));
    ASSERT_EQ(actual.size(), expected.size()) << "every step stands there once";
    for (size_t i = 0; i < expected.size(); ++i) {
      for (const char* field : {"step", "loss", "lr", "grad_norm", "tokens"}) {
        EXPECT_EQ(actual[i].at(field), expected[i].at(field)) << field << " of step " << i + 1;
      }
    }
  }
};

TEST_F(ResumeTest, StoppedAndResumedEqualsUninterrupted) {
  QIANLI_REQUIRE_ENGINE();
  expect_success(train("straight"));
  Result stopped;
  // On a machine that lets the test wait too long, the run may be done before the signal arrives.
  for (int attempt = 0; attempt < 5 && stopped.code != 75; ++attempt) {
    fs::remove_all(path("stopped"));
    const auto program = start("stopped");
    ASSERT_TRUE(program->wait_for([&] { return last_step(path("stopped")) >= 5; }));
    program->send(SIGTERM);
    stopped = program->finish();
  }
  expect_failure(stopped, 75, {"stopped after step", "everything saved", "same command again"});
  EXPECT_LT(last_step(path("stopped")), kSteps);
  expect_success(train("stopped"));
  expect_same_end("stopped", "straight");
  // A run that is done stays as it is.
  expect_success(train("stopped"));
  expect_same_end("stopped", "straight");
}

bool saving(const fs::path& checkpoints) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(checkpoints, error)) {
    if (entry.path().filename().string().starts_with(".step_")) return true;
  }
  return false;
}

class SlowResumeTest : public ResumeTest {};

TEST_F(SlowResumeTest, KilledAtAnyMomentAndResumedEqualsUninterrupted) {
  QIANLI_REQUIRE_ENGINE();
  expect_success(train("straight"));
  std::mt19937 random(11);
  const fs::path checkpoints = path("killed") / "checkpoints";
  int killed = 0;
  for (int round = 0; round < 8; ++round) {
    const int64_t begin = last_step(path("killed"));
    const int64_t step = begin + 1 + static_cast<int64_t>(random() % 4);
    const uint32_t moment = random() % 3;
    const auto program = start("killed");
    program->wait_for([&] {
      if (moment == 0) return last_step(path("killed")) >= step;
      if (moment == 1) return saving(checkpoints);
      return last_step(path("killed")) > begin &&
             fs::exists(checkpoints / ("step_" + std::to_string((step + 2) / 3 * 3)));
    });
    program->send(SIGKILL);
    const Result result = program->finish();
    ASSERT_TRUE(result.code == 128 + SIGKILL || result.code == 0) << result.err;
    killed += result.code != 0;
  }
  EXPECT_GT(killed, 0);
  expect_success(train("killed"));
  expect_same_end("killed", "straight");
  EXPECT_FALSE(saving(checkpoints)) << "what died while saving is removed by the next run";
}

}  // namespace
}  // namespace qianli::testing
