// A save that dies, or runs out of room, at any point: what was saved before is still there.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "qianli/checkpoint/checkpoint.h"
#include "qianli/checkpoint/saver.h"
#include "qianli/formats/checkpoint_folder.h"
#include "tests/checkpoint/killed_process.h"
#include "tests/checkpoint/tiny_run.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {
namespace {

namespace fs = std::filesystem;
using checkpoint::Saver;

// Death by signal loses nothing that was handed to the kernel, so memory will do for a disk.
fs::path fast_folder() {
  return fs::is_directory("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path();
}

void expect_no_leftovers(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    EXPECT_EQ(entry.path().filename().string().find(".tmp-"), std::string::npos) << entry.path();
  }
}

// Kills a save of `step` at every call that changes the disk. `before` is the folder as it was,
// and `check` looks at what was left.
void kill_everywhere(const fs::path& before, int64_t step, bool asynchronous,
                     const std::function<void(const fs::path&)>& check) {
  TinyRun run;
  const auto state = run.at_step(step);
  for (int call = 0;; ++call) {
    SCOPED_TRACE("killed before call " + std::to_string(call));
    TemporaryFolder folder(fast_folder());
    fs::copy(before, folder.path(), fs::copy_options::recursive);
    auto options = saver_options(folder.path(), run);
    options.asynchronous = asynchronous;
    options.keep = 1;
    const ChildEnd end = run_and_kill_before_disk_call(call, [&] {
      Saver saver(options);
      saver.save(state, run.parameters(), run.optimizer());
      saver.wait();
    });
    if (end == ChildEnd::kNotPermitted) GTEST_SKIP() << "this system does not permit ptrace";
    ASSERT_NE(end, ChildEnd::kFailed);
    check(folder.path());
    if (end == ChildEnd::kFinished) {
      EXPECT_GT(call, 50) << "so few calls cannot be a save";
      return;
    }
    Saver saver(options);
    expect_no_leftovers(folder.path());
    saver.save(state, run.parameters(), run.optimizer());
    saver.wait();
    EXPECT_EQ(formats::latest_checkpoint(folder.path()), folder / "step_2");
    EXPECT_TRUE(loads_as_saved(folder / "step_2", 2));
    if (::testing::Test::HasFailure()) return;
  }
}

class KilledSave : public ::testing::TestWithParam<bool> {};

TEST_P(KilledSave, leaves_the_previous_or_the_new_state) {
  TemporaryFolder before;
  TinyRun run;
  save_step(before.path(), run, 1);
  bool old_seen = false, new_seen = false;
  kill_everywhere(before.path(), 2, GetParam(), [&](const fs::path& folder) {
    const auto newest = formats::latest_checkpoint(folder);
    ASSERT_TRUE(newest.has_value());
    const bool is_new = *newest == folder / "step_2";
    EXPECT_TRUE(loads_as_saved(*newest, is_new ? 2 : 1));
    (is_new ? new_seen : old_seen) = true;
  });
  if (IsSkipped()) return;
  EXPECT_TRUE(old_seen && new_seen);
}

// The pointer names step_1, and step_2 is of a run that was taken back.
TEST_P(KilledSave, leaves_a_whole_checkpoint_where_it_replaces_one) {
  TemporaryFolder before;
  TinyRun run;
  save_step(before.path(), run, 1);
  {
    auto state = run.at_step(3);
    state.step = 2;
    Saver saver(saver_options(before.path(), run));
    saver.save(state, run.parameters(), run.optimizer());
  }
  write_text(before / "latest", "step_1\n");
  kill_everywhere(before.path(), 2, GetParam(), [&](const fs::path& folder) {
    const auto newest = formats::latest_checkpoint(folder);
    ASSERT_TRUE(newest.has_value());
    EXPECT_TRUE(loads_as_saved(*newest, *newest == folder / "step_2" ? 2 : 1));
    TinyRun loaded;  // the old or the new step_2, whole
    checkpoint::load(folder / "step_2", loaded.parameters(), loaded.optimizer());
  });
}

INSTANTIATE_TEST_SUITE_P(Checkpoint, KilledSave, ::testing::Bool(), [](const auto& info) {
  return info.param ? "asynchronous" : "synchronous";
});

TEST(FullDisk, a_write_that_fails_in_the_middle_leaves_the_old_checkpoint) {
  TemporaryFolder folder;
  TinyRun run;
  save_step(folder.path(), run, 1);
  const auto state = run.at_step(2);
  // The shards hold up to 50 kB, config.json less than 2 kB.
  for (const rlim_t limit : {0, 1, 100, 3'000, 20'000, 40'000}) {
    const bool refused = run_in_child([&] {
      ::signal(SIGXFSZ, SIG_IGN);  // writes beyond the limit fail with EFBIG
      const rlimit limits{limit, limit};
      if (::setrlimit(RLIMIT_FSIZE, &limits) != 0) return false;
      Saver saver(saver_options(folder.path(), run));
      const std::string message =
          checkpoint_error([&] { saver.save(state, run.parameters(), run.optimizer()); });
      return message.find("cannot write") != std::string::npos &&
             message.find("File too large") != std::string::npos;
    });
    EXPECT_TRUE(refused) << "limit " << limit;
    expect_no_leftovers(folder.path());
    EXPECT_EQ(formats::latest_checkpoint(folder.path()), folder / "step_1");
    EXPECT_TRUE(loads_as_saved(folder / "step_1", 1));
  }
}

// A file system of its own, where the system lets us have one.
class Mount {
 public:
  explicit Mount(const fs::path& place) : place_(place) {}
  ~Mount() { ::umount2(place_.c_str(), MNT_DETACH); }
  bool mount(const std::string& options) {
    return ::mount("none", place_.c_str(), "tmpfs", 0, options.c_str()) == 0;
  }
  bool remount(unsigned long flags, const std::string& options) {
    return ::mount("none", place_.c_str(), "tmpfs", MS_REMOUNT | flags, options.c_str()) == 0;
  }

 private:
  fs::path place_;
};

TEST(FullDisk, no_room_is_seen_beforehand_and_no_room_for_files_in_the_middle) {
  TemporaryFolder folder;
  Mount disk(folder.path());
  if (!disk.mount("size=4m")) GTEST_SKIP() << "mount: " << std::strerror(errno);
  TinyRun run;
  save_step(folder.path(), run, 1);
  const auto state = run.at_step(2);
  Saver saver(saver_options(folder.path(), run));
  const auto save = [&] { saver.save(state, run.parameters(), run.optimizer()); };

  ASSERT_TRUE(disk.remount(0, "size=1m"));
  std::string message = checkpoint_error(save);
  EXPECT_NE(message.find("free space"), std::string::npos) << message;
  EXPECT_TRUE(loads_as_saved(*formats::latest_checkpoint(folder.path()), 1));

  // Every count of files that is too small for the second checkpoint.
  ASSERT_TRUE(disk.remount(0, "size=4m"));
  int refused = 0;
  for (int files = 10; files < 100; ++files) {
    if (!disk.remount(0, "nr_inodes=" + std::to_string(files))) continue;  // fewer than there are
    try {
      save();
      break;
    } catch (const CheckpointError& error) {
      message = error.what();
    }
    ++refused;
    EXPECT_NE(message.find("No space left"), std::string::npos) << message;
    expect_no_leftovers(folder.path());
    EXPECT_TRUE(loads_as_saved(*formats::latest_checkpoint(folder.path()), 1));
  }
  EXPECT_GT(refused, 3);
  EXPECT_TRUE(loads_as_saved(*formats::latest_checkpoint(folder.path()), 2));
}

TEST(FullDisk, a_read_only_folder_is_an_error_and_still_loads) {
  TemporaryFolder folder;
  Mount disk(folder.path());
  if (!disk.mount("size=4m")) GTEST_SKIP() << "mount: " << std::strerror(errno);
  TinyRun run;
  save_step(folder.path(), run, 1);
  ASSERT_TRUE(disk.remount(MS_RDONLY, ""));
  Saver saver(saver_options(folder.path(), run));
  const std::string message =
      checkpoint_error([&] { saver.save(run.at_step(2), run.parameters(), run.optimizer()); });
  EXPECT_NE(message.find("Read-only"), std::string::npos) << message;
  EXPECT_EQ(formats::latest_checkpoint(folder.path()), folder / "step_1");
  EXPECT_TRUE(loads_as_saved(folder / "step_1", 1));
}

}  // namespace
}  // namespace qianli::testing
