// scripts/quickstart.sh from a text to its last line, with the program that was built: short, so
// the model learns little.
#include <algorithm>
#include <random>
#include <sstream>

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

// What stands behind `name` at the start of a line.
std::string behind(const std::string& text, const std::string& name) {
  const size_t line = text.find("\n" + name + " ");
  EXPECT_NE(line, std::string::npos) << name << " in " << text;
  if (line == std::string::npos) return "false";
  const size_t first = text.find_first_not_of(' ', line + 1 + name.size());
  return text.substr(first, text.find('\n', first) - first);
}

// Lines of a sample in which there is a word.
size_t sample_lines(const std::string& text) {
  std::istringstream lines(text);
  size_t count = 0;
  for (std::string line; std::getline(lines, line);) {
    count += line.starts_with("  │ ") &&
             std::any_of(line.begin(), line.end(), [](char c) { return 'a' <= c && c <= 'z'; });
  }
  return count;
}

// `command` with other digits behind "train.steps=".
std::string with_steps(const std::string& command, int64_t steps) {
  const std::string key = "train.steps=";
  const size_t first = command.find(key) + key.size();
  return command.substr(0, first) + std::to_string(steps) +
         command.substr(command.find_first_not_of("0123456789", first));
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
  EXPECT_GT(std::stod(behind(first.err, "Validation loss")), 0.0);
  EXPECT_NE(first.err.find((run_ / "report.html").string()), std::string::npos);

  const Result own_words = bash({"-c", behind(first.err, "Its own words")});
  EXPECT_EQ(own_words.code, 0) << own_words.err;
  EXPECT_TRUE(own_words.out.starts_with("In the beginning")) << own_words.out;

  const int64_t done = last_step(run_);
  EXPECT_EQ(done, std::stoll(read_text(run_ / "steps")));
  const std::string longer = behind(first.err, "Train on, longer");
  EXPECT_NE(longer.find("train.steps=" + std::to_string(3 * done)), std::string::npos) << longer;
  const Result more = bash({"-c", with_steps(longer, done + 2)});
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
