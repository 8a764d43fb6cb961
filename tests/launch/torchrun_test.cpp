// The real torchrun, where there is one: QIANLI_TORCHRUN names it, or it is in PATH. It starts this
// program again, two ranks, each of which writes down what it takes itself for.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "qianli/base/error.h"
#include "qianli/launch/child.h"
#include "qianli/launch/rank_environment.h"
#include "tests/support/test_paths.h"

namespace qianli::launch {
namespace {

namespace fs = std::filesystem;

std::string torchrun() {
  if (const char* given = std::getenv("QIANLI_TORCHRUN")) return given;
  try {
    return find_program("torchrun");
  } catch (const ConfigError&) {
    return {};
  }
}

TEST(Torchrun, DISABLED_rank_writes_itself_down) {
  const auto self = rank_environment(process_environment());
  ASSERT_EQ(self.source, "torchrun");
  std::ofstream(fs::path(std::getenv("QIANLI_RANKS_FOLDER")) / std::to_string(self.rank))
      << self.world_size << ' ' << self.local_rank << ' ' << self.local_world_size << ' '
      << self.node_rank << ' ' << !self.master_address.empty() << ' ' << (self.master_port > 0)
      << ' ' << self.launcher_serves_store << ' ' << self.restart_count << ' ' << self.job_id;
}

TEST(Torchrun, ranks_know_themselves) {
  const std::string program = torchrun();
  if (program.empty()) GTEST_SKIP() << "no torchrun: set QIANLI_TORCHRUN or PATH";
  const testing::TemporaryFolder folder;
  const std::string self = fs::read_symlink("/proc/self/exe");
  const std::string command =
      "QIANLI_RANKS_FOLDER='" + folder.path().string() + "' '" + program +
      "' --no-python --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint localhost:0 "
      "--rdzv-id some-job '" +
      self +
      "' --gtest_also_run_disabled_tests --gtest_filter=Torchrun.DISABLED_rank_writes_itself_down "
      "> '" +
      (folder / "log").string() + "' 2>&1";
  const int status = std::system(command.c_str());
  std::ifstream log(folder / "log");
  EXPECT_EQ(status, 0) << std::string(std::istreambuf_iterator<char>(log), {});
  for (const std::string rank : {"0", "1"}) {
    std::ifstream file(folder / rank);
    std::string line;
    std::getline(file, line);
    EXPECT_EQ(line, "2 " + rank + " 2 0 1 1 1 0 some-job");
  }
}

}  // namespace
}  // namespace qianli::launch
