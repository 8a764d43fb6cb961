// scripts/quickstart.sh from a text to its last line, with the program that was built: short, so
// the model learns little.
#include <random>
#include <regex>

#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

// 80 kB in lines and paragraphs, of 900 made-up words: enough for a tokenizer of 2048 pieces.
std::string story() {
  const char* sounds[] = {"ka", "lo", "mi", "tu", "re", "san", "dor", "vel", "ish", "om"};
  std::mt19937 random(5);
  std::string text;
  while (text.size() < 80000) {
    const auto words = 4 + random() % 9;
    for (size_t word = 0; word < words; ++word) {
      text += sounds[random() % 10];
      text += sounds[random() % 9];
      text += sounds[random() % 10];
      text += word + 1 < words ? " " : ".\n";
    }
    if (random() % 8 == 0) text += "\n";
  }
  return text;
}

class SlowQuickstartTest : public ::testing::Test {
 protected:
  Result bash(std::vector<std::string> arguments) const {
    RunOptions options{.folder = folder_.path(), .timeout = std::chrono::seconds(300)};
    options.environment["QIANLI"] = program_path().string();
    options.environment["QUICKSTART_DIR"] = run_.string();
    options.environment["QUICKSTART_SECONDS"] = "5";
    options.program = "/bin/bash";
    return testing::run(std::move(arguments), options);
  }
  Result quickstart() const {
    return bash({source_path("scripts/quickstart.sh").string(), (folder_ / "story.txt").string()});
  }

  TemporaryFolder folder_;
  const fs::path run_ = folder_ / "run";
};

// What stands behind `name` in the table at the end.
std::string command_of(const std::string& table, const std::string& name) {
  const std::regex line("\n" + name + " +(.*)");
  std::smatch found;
  EXPECT_TRUE(std::regex_search(table, found, line)) << name << " in " << table;
  return found.empty() ? "false" : found[1].str();
}

size_t sample_lines(const std::string& text) {
  const std::regex sample("\n  │ .*[a-z]");
  return std::distance(std::sregex_iterator(text.begin(), text.end(), sample), {});
}

TEST_F(SlowQuickstartTest, TrainsOnATextAndNamesWhatComesNext) {
  QIANLI_REQUIRE_ENGINE();
  write_text(folder_ / "story.txt", story());
  Result first = quickstart();
  // Where time is over before the last step, the same command goes on.
  for (int again = 0; again < 20 && first.err.find("machine became slower") != std::string::npos;
       ++again) {
    first = quickstart();
  }
  ASSERT_EQ(first.code, 0) << first.err;
  const size_t trained = first.err.find("After training it writes");
  ASSERT_NE(trained, std::string::npos) << first.err;
  EXPECT_GE(sample_lines(first.err.substr(0, trained)), 2u) << first.err;
  EXPECT_GE(sample_lines(first.err.substr(trained)), 2u) << first.err;
  EXPECT_TRUE(fs::is_regular_file(run_ / "report.html"));
  EXPECT_TRUE(std::regex_search(first.err, std::regex("Validation loss +[0-9.]+ nats per byte")));
  EXPECT_NE(first.err.find((run_ / "report.html").string()), std::string::npos);

  const Result own_words = bash({"-c", command_of(first.err, "Its own words")});
  EXPECT_EQ(own_words.code, 0) << own_words.err;
  EXPECT_TRUE(own_words.out.starts_with("In the beginning")) << own_words.out;

  const int64_t done = last_step(run_);
  EXPECT_EQ(done, std::stoll(read_text(run_ / "steps")));
  const std::string longer = command_of(first.err, "Train on, longer");
  EXPECT_NE(longer.find("train.steps=" + std::to_string(3 * done)), std::string::npos) << longer;
  const std::string two_more =
      std::regex_replace(longer, std::regex("steps=[0-9]+"), "steps=" + std::to_string(done + 2));
  const Result more = bash({"-c", two_more});
  EXPECT_EQ(more.code, 0) << more.err;
  EXPECT_EQ(last_step(run_), done + 2);

  const Result again = quickstart();
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_NE(again.err.find("Already trained"), std::string::npos) << again.err;
}

TEST_F(SlowQuickstartTest, ShortTextsAreRefused) {
  write_text(folder_ / "story.txt", story().substr(0, 2000));
  const Result result = quickstart();
  expect_failure(result, 3, {"50 kB", "2000 bytes", "story.txt"});
  EXPECT_FALSE(fs::exists(run_));
}

}  // namespace
}  // namespace qianli::testing
