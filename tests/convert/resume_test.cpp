// Conversions that are killed or stopped, and gone on with.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

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

// The files of a folder, or the file itself under an empty name.
std::map<std::string, std::string> contents(const fs::path& folder) {
  if (!fs::is_directory(folder)) return {{"", read_file(folder, FileRole::kCheckpoint)}};
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

  friend void PrintTo(const Case& one, std::ostream* out) { *out << one.name; }
};

class Resume : public ::testing::TestWithParam<Case> {
 protected:
  void write(const fs::path& target, const ProgressFunction& progress) const {
    GetParam().write(*open_model(golden()), target, GetParam().options, progress);
  }

  // What an uninterrupted run writes, under the same name.
  std::map<std::string, std::string> expected(const ProgressFunction& progress = {}) const {
    const testing::TemporaryFolder place;
    write(place / "out", progress);
    return contents(place / "out");
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
  // Every run gets a little further before it is killed; the last one ends.
  int kills = 0, after = 1;
  for (; WIFSIGNALED(run(place / "out", after, SIGKILL)); ++after) {
    ++kills;
    EXPECT_FALSE(fs::exists(place / "out"));
    EXPECT_TRUE(fs::exists(working(place / "out")));
  }
  EXPECT_GT(kills, 3);
  EXPECT_EQ(contents(place / "out"), expected());
  EXPECT_FALSE(fs::exists(working(place / "out")));
}

TEST_P(Resume, what_is_written_is_not_written_again_but_counts) {
  const testing::TemporaryFolder place;
  uint64_t bytes = 0;
  int pieces = 0;
  const auto whole = expected([&](uint64_t done, uint64_t) {
    ++pieces;
    bytes = done;
  });
  ASSERT_TRUE(WIFSIGNALED(run(place / "out", pieces - 2, SIGKILL)));
  std::vector<uint64_t> again;
  write(place / "out", [&](uint64_t done, uint64_t total) {
    again.push_back(done);
    EXPECT_EQ(total, bytes);
  });
  ASSERT_FALSE(again.empty());
  EXPECT_LT(again.size(), static_cast<size_t>(pieces) / 2);
  EXPECT_GT(again.front(), bytes / 2);
  EXPECT_EQ(again.back(), bytes);
  EXPECT_EQ(contents(place / "out"), whole);
}

// A journal is appended to when its file is on disk: the files may have more bytes than it says, or
// other ones there.
TEST_P(Resume, every_line_of_the_journal_leads_to_the_same_files) {
  const testing::TemporaryFolder place;
  int pieces = 0;
  const auto whole = expected([&](uint64_t, uint64_t) { ++pieces; });
  ASSERT_TRUE(WIFSIGNALED(run(place / "out", pieces, SIGKILL)));
  const fs::path left = working(place / "out");
  fs::rename(left, place / "left");
  const std::string journal = read_file(place / "left/journal", FileRole::kCheckpoint);
  int lines = 0, fewest = pieces;
  for (size_t end = journal.find('\n'); end != journal.npos; end = journal.find('\n', end + 1)) {
    ++lines;
    fs::copy(place / "left", left, fs::copy_options::recursive);
    std::map<std::string, uint64_t> sizes;
    std::istringstream said(journal.substr(journal.find('\n'), end - journal.find('\n')));
    uint64_t size = 0;
    for (std::string name; said >> size >> name;) sizes[name] = size;
    for (const auto& [name, bytes] : contents(left)) {
      if (!name.ends_with(".json")) fs::resize_file(left / name, sizes[name]);
      std::ofstream(left / name, std::ios::app) << "torn";
    }
    std::ofstream(left / "journal", std::ios::trunc) << journal.substr(0, end + 1) << "123 to";
    int again = 0;
    write(place / "out", [&](uint64_t, uint64_t) { ++again; });
    EXPECT_EQ(contents(place / "out"), whole) << "after line " << lines;
    EXPECT_LE(again, fewest);
    fewest = again;
    fs::remove_all(place / "out");
  }
  EXPECT_LT(fewest, 4);
  EXPECT_GT(lines, 5);
}

TEST_P(Resume, other_settings_and_sources_start_anew) {
  const testing::TemporaryFolder place;
  const auto convert = [&](const fs::path& source, formats::Dtype dtype, int stop_after) {
    TargetOptions options = GetParam().options;
    options.dtype = dtype;
    const pid_t child = ::fork();
    if (child == 0) {
      int pieces = 0;
      GetParam().write(*open_model(source), place / "out", options, [&](uint64_t, uint64_t) {
        if (++pieces == stop_after) ::raise(SIGKILL);
      });
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
  };
  fs::copy(golden(), place / "source", fs::copy_options::recursive);
  ASSERT_TRUE(WIFSIGNALED(convert(place / "source", formats::Dtype::kF16, 8)));
  ASSERT_EQ(convert(place / "source", formats::Dtype::kF32, 0), 0);
  const auto first = contents(place / "out");
  verify(*open_model(golden()), *open_model(place / "out"));
  fs::remove_all(place / "out");
  ASSERT_TRUE(WIFSIGNALED(convert(golden(), formats::Dtype::kF32, 8)));
  ASSERT_EQ(convert(place / "source", formats::Dtype::kF32, 0), 0);
  EXPECT_EQ(contents(place / "out"), first);
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
    ::testing::Values(
        Case{"hugging_face",
             write_hugging_face,
             {.max_shard_bytes = 20'000, .journal_step = 12'000}},
        Case{"qianli", write_checkpoint, {.max_shard_bytes = 20'000, .journal_step = 12'000}},
        Case{"megatron",
             write_megatron,
             {.layout = {.tensor = 2, .pipeline = 2}, .journal_step = 12'000}},
        Case{"gguf", write_gguf, {.journal_step = 12'000}},
        Case{"gguf_in_blocks", write_gguf, {.q8_0 = true, .journal_step = 6'000}},
        Case{"mindspore", write_mindspore, {.journal_step = 12'000}}),
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
  EXPECT_EQ(found("this\n3 a\n"), 3U);
  EXPECT_EQ(found("this\n1 a\n2 a\n"), 2U);
  EXPECT_EQ(found("this\n3 a\n4 b"), 3U) << "a line that was cut off";
  EXPECT_EQ(found("this\n3 a"), 0U);
  EXPECT_EQ(found("this"), 0U);
  for (const char* other :
       {"that\n3 a\n", "this\n4 a\n", "this\n3 ../../a\n", "this\n3 /etc/passwd\n", "this\n3 b\n",
        "this\n3\n", "this\n3 \n", "this\n-3 a\n", "this\n99999999999999999999 a\n", "", "\n"}) {
    EXPECT_EQ(found(other), 0U) << other;
  }
  leave_behind("that\n3 a\n");
  ConversionFolder folder(place / "out", "this");
  folder.write("b", [&](FileGrowth growth) {
    OutputFile file(folder.path() / "b", FileRole::kCheckpoint, std::move(growth));
    file.write("new");
    file.commit();
  });
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
