// Launchers that others have written, where they are installed: each starts this program again, two
// ranks, and each of these writes down what it takes itself for. QIANLI_TORCHRUN names torchrun
// where it is not in PATH.
#include <fmt/format.h>
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

std::string program(const char* name, const char* variable = nullptr) {
  if (const char* given = variable ? std::getenv(variable) : nullptr) return given;
  try {
    return find_program(name);
  } catch (const ConfigError&) {
    return {};
  }
}

std::string whole(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(RealLauncher, DISABLED_rank_writes_itself_down) {
  const auto self = rank_environment(process_environment());
  std::ofstream(fs::path(std::getenv("QIANLI_RANKS_FOLDER")) / std::to_string(self.rank))
      << fmt::format("{} rank {} of {}, {} of {} here, node {}, {}:{}, {}", self.source, self.rank,
                     self.world_size, self.local_rank, self.local_world_size, self.node_rank,
                     self.master_address.empty() ? "nowhere" : "address",
                     self.master_port > 0 ? "port" : "none",
                     self.launcher_serves_store ? "served" : "to serve");
}

// What ranks 0 and 1 take themselves for when `launcher`, a command without the program, starts
// them.
std::vector<std::string> started_by(const std::string& launcher) {
  const testing::TemporaryFolder folder;
  const std::string self = fs::read_symlink("/proc/self/exe");
  const int status = std::system(
      fmt::format("QIANLI_RANKS_FOLDER='{}' {} '{}' --gtest_also_run_disabled_tests "
                  "--gtest_filter=RealLauncher.DISABLED_rank_writes_itself_down > '{}' 2>&1",
                  folder.path().string(), launcher, self, (folder / "log").string())
          .c_str());
  EXPECT_EQ(status, 0) << whole(folder / "log");
  return {whole(folder / "0"), whole(folder / "1")};
}

TEST(RealLauncher, torchrun) {
  const std::string torchrun = program("torchrun", "QIANLI_TORCHRUN");
  if (torchrun.empty()) GTEST_SKIP() << "no torchrun: set QIANLI_TORCHRUN or PATH";
  EXPECT_EQ(started_by(
                "'" + torchrun +
                "' --no-python --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint localhost:0"),
            (std::vector<std::string>{
                "torchrun rank 0 of 2, 0 of 2 here, node 0, address:port, served",
                "torchrun rank 1 of 2, 1 of 2 here, node 0, address:port, served"}));
}

TEST(RealLauncher, mpirun) {
  const std::string mpirun = program("mpirun");
  if (mpirun.empty()) GTEST_SKIP() << "no mpirun in PATH: openmpi-bin or mpich has it";
  // Open MPI refuses to work for root, and with more ranks than cores, unless told so.
  const auto ranks = started_by(
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
      "OMPI_MCA_rmaps_base_oversubscribe=1 '" +
      mpirun + "' -n 2");
  for (const char* source : {"openmpi", "hydra"}) {
    if (!ranks[0].starts_with(source)) continue;
    EXPECT_EQ(
        ranks,
        (std::vector<std::string>{
            fmt::format("{} rank 0 of 2, 0 of 2 here, node 0, address:port, to serve", source),
            fmt::format("{} rank 1 of 2, 1 of 2 here, node 0, address:port, to serve", source)}));
    return;
  }
  ADD_FAILURE() << "neither Open MPI's nor MPICH's variables: " << ranks[0];
}

}  // namespace
}  // namespace qianli::launch
