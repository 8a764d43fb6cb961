// Conversions that are killed or stopped, and gone on with.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <map>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/stop.h"
#include "qianli/convert/conversion_folder.h"
#include "qianli/convert/verify.h"
#include "qianli/convert/write_model.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using Write = void (*)(const ModelSource&, const fs::path&, const TargetOptions&,
                       const ProgressFunction&);

fs::path golden() { return testing::source_path("tests/golden/models/llama2"); }

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    files[fs::relative(entry.path(), folder)] = read_file(entry.path(), FileRole::kCheckpoint);
  }
  return files;
}

struct Case {
  const char* name;
  Write write;
  TargetOptions options;
};

class Resume : public ::testing::TestWithParam<Case> {
 protected:
  void write(const fs::path& target, const ProgressFunction& progress) const {
    GetParam().write(*open_model(golden()), target, GetParam().options, progress);
  }

  // Runs a conversion in a process of its own that gets `signal` when `after` pieces are written.
  int run(const fs::path& target, int after, int signal) const {
    const pid_t child = ::fork();
    if (child == 0) {
      install_stop_handler();
      int pieces = 0;
      try {
        write(target, [&](uint64_t, uint64_t) {
          if (++pieces == after) ::raise(signal);
        });
      } catch (const Error& error) {
        ::_exit(static_cast<int>(error.code()));
      } catch (...) {
        ::_exit(99);
      }
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
  }

  fs::path working(const fs::path& target) const {
    return target.parent_path() / ("." + target.filename().string() + ".converting");
  }
};

TEST_P(Resume, killed_anywhere_it_goes_on_to_the_same_files) {
  const testing::TemporaryFolder place;
  write(place / "expected", {});
  const auto expected = contents(place / "expected");
  // Every run gets a little further before it is killed; the last one ends.
  int kills = 0, after = 1;
  for (; WIFSIGNALED(run(place / "out", after, SIGKILL)); after += 3) {
    ++kills;
    EXPECT_FALSE(fs::exists(place / "out"));
    EXPECT_TRUE(fs::exists(working(place / "out")));
  }
  EXPECT_GT(kills, 2);
  EXPECT_EQ(contents(place / "out"), expected);
  EXPECT_FALSE(fs::exists(working(place / "out")));
}

TEST_P(Resume, finished_files_are_not_written_again) {
  const testing::TemporaryFolder place;
  int pieces = 0;
  write(place / "whole", [&](uint64_t, uint64_t) { ++pieces; });
  ASSERT_TRUE(WIFSIGNALED(run(place / "out", pieces, SIGKILL)));
  int again = 0;
  write(place / "out", [&](uint64_t, uint64_t) { ++again; });
  EXPECT_LT(again, pieces / 2 + 1);
  EXPECT_EQ(contents(place / "out"), contents(place / "whole"));
}

TEST_P(Resume, a_stop_keeps_what_is_done) {
  const testing::TemporaryFolder place;
  const int status = run(place / "out", 5, SIGINT);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), static_cast<int>(ExitCode::kStopped));
  EXPECT_TRUE(fs::exists(working(place / "out")));
  write(place / "out", {});
  verify(*open_model(golden()), *open_model(place / "out"));
}

INSTANTIATE_TEST_SUITE_P(
    Targets, Resume,
    ::testing::Values(Case{"hugging_face", write_hugging_face, {.max_shard_bytes = 20'000}},
                      Case{"qianli", write_checkpoint, {.max_shard_bytes = 20'000}},
                      Case{"megatron", write_megatron, {.layout = {.tensor = 2, .pipeline = 2}}}),
    [](const auto& info) { return info.param.name; });

TEST(ConversionFolder, another_conversion_starts_anew) {
  const testing::TemporaryFolder place;
  const auto leave_behind = [&](const std::string& journal) {
    create_folder(place / ".out.converting", FileRole::kCheckpoint);
    write_file_atomically(place / ".out.converting/a", "old", FileRole::kCheckpoint);
    write_file_atomically(place / ".out.converting/journal", journal, FileRole::kCheckpoint);
  };
  const auto found = [&](const std::string& journal) {
    leave_behind(journal);
    return ConversionFolder(place / "out", "this").found();
  };
  EXPECT_EQ(found("this\n3 a\n"), 1U);
  EXPECT_EQ(found("this\n3 a\n4 b"), 1U) << "a line that was cut off";
  EXPECT_EQ(found("this\n3 a"), 0U);
  for (const char* other : {"that\n3 a\n", "this\n4 a\n", "this\n3 ../../a\n",
                            "this\n3 /etc/passwd\n", "this\n3 b\n", "", "\n"}) {
    EXPECT_EQ(found(other), 0U) << other;
  }
  leave_behind("that\n3 a\n");
  ConversionFolder folder(place / "out", "this");
  folder.once("b",
              [&] { write_file_atomically(folder.path() / "b", "new", FileRole::kCheckpoint); });
  folder.commit();
  EXPECT_EQ(contents(place / "out"), (std::map<std::string, std::string>{{"b", "new"}}));
}

TEST(ConversionFolder, is_written_by_one_at_a_time_and_goes_when_it_fails) {
  const testing::TemporaryFolder place;
  {
    const ConversionFolder folder(place / "out", "this");
    EXPECT_THROW(ConversionFolder(place / "out", "this"), CheckpointError);
    EXPECT_TRUE(fs::exists(folder.path()));
  }
  EXPECT_TRUE(fs::is_empty(place.path()));
}

}  // namespace
}  // namespace qianli::convert
