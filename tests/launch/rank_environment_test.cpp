#include "qianli/launch/rank_environment.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"

namespace qianli::launch {
namespace {

const Environment kTorchrun{{"RANK", "5"},
                            {"WORLD_SIZE", "8"},
                            {"LOCAL_RANK", "1"},
                            {"LOCAL_WORLD_SIZE", "4"},
                            {"GROUP_RANK", "1"},
                            {"MASTER_ADDR", "node003"},
                            {"MASTER_PORT", "29500"},
                            {"TORCHELASTIC_RESTART_COUNT", "2"},
                            {"TORCHELASTIC_RUN_ID", "job"},
                            {"TORCHELASTIC_USE_AGENT_STORE", "True"}};

// Of the third of three nodes with 4, 4 and 2 tasks.
const Environment kSlurm{{"SLURM_PROCID", "9"},
                         {"SLURM_NTASKS", "10"},
                         {"SLURM_LOCALID", "1"},
                         {"SLURM_NODEID", "2"},
                         {"SLURM_STEP_ID", "0"},
                         {"SLURM_JOB_ID", "4711"},
                         {"SLURM_STEP_TASKS_PER_NODE", "4(x2),2"},
                         {"SLURM_STEP_NODELIST", "node[003-005,7],gpu1"},
                         {"SLURM_LAUNCH_NODE_IPADDR", "10.1.1.1"}};

const Environment kOpenMpi{{"OMPI_COMM_WORLD_RANK", "3"},
                           {"OMPI_COMM_WORLD_SIZE", "4"},
                           {"OMPI_COMM_WORLD_LOCAL_RANK", "3"},
                           {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                           {"PMIX_RANK", "3"},
                           {"PMIX_NAMESPACE", "prte-host-17@1"}};

const Environment kHydra{{"PMI_RANK", "2"},           {"PMI_SIZE", "4"},
                         {"MPI_LOCALRANKID", "0"},    {"MPI_LOCALNRANKS", "2"},
                         {"MASTER_ADDR", "10.0.0.1"}, {"MASTER_PORT", "1234"}};

const Environment kMsrun{{"MS_ROLE", "MS_WORKER"},
                         {"MS_WORKER_NUM", "8"},
                         {"MS_NODE_ID", "6"},
                         {"RANK_ID", "6"},
                         {"RANK_SIZE", "8"},
                         {"DEVICE_ID", "6"},
                         {"MS_SCHED_HOST", "127.0.0.1"},
                         {"MS_SCHED_PORT", "8118"}};

Environment without(Environment environment, std::initializer_list<const char*> names) {
  for (const char* name : names) environment.erase(name);
  return environment;
}

Environment with(Environment environment, const Environment& more) {
  for (const auto& [name, value] : more) environment[name] = value;
  return environment;
}

void expect_refused(const Environment& environment, std::initializer_list<const char*> words) {
  try {
    rank_environment(environment);
    ADD_FAILURE() << "accepted";
  } catch (const ConfigError& error) {
    for (const char* word : words)
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
  }
}

TEST(RankEnvironment, nothing_set_is_one_rank) {
  EXPECT_EQ(rank_environment({}), RankEnvironment{});
  EXPECT_EQ(rank_environment({{"HOME", "/root"}, {"RANK", ""}}), RankEnvironment{});
}

TEST(RankEnvironment, reads_torchrun) {
  const RankEnvironment expected{.source = "torchrun",
                                 .world_size = 8,
                                 .rank = 5,
                                 .local_world_size = 4,
                                 .local_rank = 1,
                                 .node_rank = 1,
                                 .master_address = "node003",
                                 .master_port = 29500,
                                 .launcher_serves_store = true,
                                 .restart_count = 2,
                                 .job_id = "job"};
  EXPECT_EQ(rank_environment(kTorchrun), expected);
  EXPECT_FALSE(rank_environment(with(kTorchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}}))
                   .launcher_serves_store);
}

TEST(RankEnvironment, four_variables_are_one_rank_per_machine) {
  const auto self = rank_environment(
      {{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "pod-0"}, {"MASTER_PORT", "23456"}});
  EXPECT_EQ(self.local_rank, 0);
  EXPECT_EQ(self.local_world_size, 1);
  EXPECT_EQ(self.node_rank, 1);
}

TEST(RankEnvironment, one_rank_needs_no_place_to_meet) {
  const auto self = rank_environment({{"RANK", "0"}, {"WORLD_SIZE", "1"}});
  EXPECT_EQ(self.source, "torchrun");
  EXPECT_EQ(self.master_address, "");
}

TEST(RankEnvironment, reads_slurm) {
  const auto self = rank_environment(kSlurm);
  EXPECT_EQ(self.source, "slurm");
  EXPECT_EQ(self.rank, 9);
  EXPECT_EQ(self.world_size, 10);
  EXPECT_EQ(self.local_rank, 1);
  EXPECT_EQ(self.local_world_size, 2);
  EXPECT_EQ(self.node_rank, 2);
  EXPECT_EQ(self.master_address, "node003");
  EXPECT_EQ(self.job_id, "4711");
  // All tasks of a step get one port; the next step another one.
  const auto first = rank_environment(
      with(kSlurm, {{"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}, {"SLURM_NODEID", "0"}}));
  EXPECT_EQ(first.master_port, self.master_port);
  EXPECT_NE(rank_environment(with(kSlurm, {{"SLURM_STEP_ID", "1"}})).master_port, self.master_port);
  const auto told = rank_environment(with(kSlurm, {{"MASTER_ADDR", "a"}, {"MASTER_PORT", "7"}}));
  EXPECT_EQ(told.master_address, "a");
  EXPECT_EQ(told.master_port, 7);
  EXPECT_EQ(rank_environment(without(kSlurm, {"SLURM_STEP_NODELIST"})).master_address, "10.1.1.1");
  EXPECT_EQ(rank_environment(with(kSlurm, {{"SLURM_RESTART_COUNT", "3"}})).restart_count, 3);
}

TEST(RankEnvironment, a_batch_script_of_slurm_is_one_rank) {
  const Environment script{
      {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "16"}, {"SLURM_LOCALID", "0"}, {"SLURM_NODEID", "0"}};
  const auto self = rank_environment(script);
  EXPECT_EQ(self.world_size, 1);
  EXPECT_NE(self.notice.find("srun"), std::string::npos);
}

TEST(RankEnvironment, reads_open_mpi) {
  const auto self = rank_environment(kOpenMpi);
  EXPECT_EQ(self.source, "openmpi");
  EXPECT_EQ(self.rank, 3);
  EXPECT_EQ(self.world_size, 4);
  EXPECT_EQ(self.local_rank, 3);
  EXPECT_EQ(self.node_rank, 0);
  EXPECT_EQ(self.master_address, "127.0.0.1");
  EXPECT_NE(self.master_port, 0);
  const Environment two_machines =
      with(kOpenMpi, {{"OMPI_COMM_WORLD_LOCAL_RANK", "1"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  expect_refused(two_machines, {"MASTER_ADDR", "openmpi"});
  EXPECT_EQ(rank_environment(with(two_machines, {{"MASTER_ADDR", "head"}})).node_rank, 1);
  // --map-by node: which machine is number one cannot be told.
  EXPECT_EQ(
      rank_environment(with(two_machines, {{"MASTER_ADDR", "head"}, {"OMPI_COMM_WORLD_RANK", "2"}}))
          .node_rank,
      -1);
}

TEST(RankEnvironment, reads_mpich_and_intel_mpi) {
  const auto self = rank_environment(kHydra);
  EXPECT_EQ(self.source, "hydra");
  EXPECT_EQ(self.rank, 2);
  EXPECT_EQ(self.local_rank, 0);
  EXPECT_EQ(self.local_world_size, 2);
  EXPECT_EQ(self.node_rank, 1);
  EXPECT_EQ(self.master_port, 1234);
}

TEST(RankEnvironment, reads_msrun) {
  const auto self = rank_environment(kMsrun);
  EXPECT_EQ(self.source, "msrun");
  EXPECT_EQ(self.rank, 6);
  EXPECT_EQ(self.world_size, 8);
  EXPECT_EQ(self.local_rank, 6);
  EXPECT_EQ(self.local_world_size, 8);
  EXPECT_EQ(self.master_address, "127.0.0.1");
  EXPECT_EQ(self.master_port, 8118);
  EXPECT_FALSE(self.is_scheduler);
  EXPECT_TRUE(rank_environment(with(without(kMsrun, {"RANK_ID", "MS_NODE_ID", "DEVICE_ID"}),
                                    {{"MS_ROLE", "MS_SCHED"}}))
                  .is_scheduler);
  const Environment far = with(kMsrun, {{"MS_SCHED_HOST", "10.0.0.1"}, {"DEVICE_ID", "2"}});
  expect_refused(far, {"LOCAL_WORLD_SIZE", "MS_SCHED_HOST"});
  const auto told = rank_environment(with(far, {{"LOCAL_WORLD_SIZE", "4"}}));
  EXPECT_EQ(told.node_rank, 1);
  EXPECT_EQ(told.local_rank, 2);
}

TEST(RankEnvironment, the_innermost_launcher_decides) {
  Environment all = kTorchrun;
  for (const auto& other : {kMsrun, kOpenMpi, kHydra, kSlurm})
    all.insert(other.begin(), other.end());
  EXPECT_EQ(rank_environment(all).source, "torchrun");
  all = without(all, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"});
  EXPECT_EQ(rank_environment(all).source, "msrun");
  all = without(all, {"MS_ROLE", "MS_WORKER_NUM", "RANK_ID", "RANK_SIZE"});
  EXPECT_EQ(rank_environment(all).source, "openmpi");
  all = without(all, {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"});
  EXPECT_EQ(rank_environment(all).source, "hydra");
  // srun --mpi=pmi2 sets PMI_RANK beside its own.
  all = without(all, {"MPI_LOCALRANKID", "MPI_LOCALNRANKS"});
  EXPECT_EQ(rank_environment(all).source, "slurm");
}

TEST(RankEnvironment, half_an_environment_is_refused_by_name) {
  expect_refused({{"RANK", "0"}}, {"expected WORLD_SIZE beside RANK"});
  expect_refused({{"WORLD_SIZE", "2"}}, {"expected RANK beside WORLD_SIZE"});
  expect_refused(without(kTorchrun, {"LOCAL_RANK"}), {"expected LOCAL_RANK"});
  expect_refused(without(kTorchrun, {"LOCAL_WORLD_SIZE"}), {"expected LOCAL_WORLD_SIZE"});
  expect_refused(without(kTorchrun, {"MASTER_ADDR"}), {"expected MASTER_ADDR"});
  expect_refused(without(kTorchrun, {"MASTER_PORT"}), {"expected MASTER_PORT"});
  expect_refused(without(kOpenMpi, {"OMPI_COMM_WORLD_SIZE"}), {"OMPI_COMM_WORLD_SIZE"});
  expect_refused(without(kHydra, {"MPI_LOCALNRANKS"}), {"MPI_LOCALNRANKS"});
  expect_refused(without(kSlurm, {"SLURM_LOCALID"}), {"SLURM_LOCALID"});
  expect_refused(without(kSlurm, {"SLURM_STEP_TASKS_PER_NODE"}), {"SLURM_TASKS_PER_NODE"});
  expect_refused(without(kMsrun, {"MS_WORKER_NUM", "RANK_SIZE"}), {"RANK_SIZE or MS_WORKER_NUM"});
  expect_refused(without(kMsrun, {"RANK_ID", "MS_NODE_ID"}), {"RANK_ID or MS_NODE_ID"});
  expect_refused({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}}, {"MPI_LOCALRANKID", "PMI_RANK"});
  expect_refused({{"PMIX_RANK", "0"}}, {"PMIX_RANK"});
}

TEST(RankEnvironment, contradictions_are_refused_by_name) {
  expect_refused(with(kTorchrun, {{"RANK", "8"}}), {"RANK", "WORLD_SIZE = 8", "got 8"});
  expect_refused(with(kTorchrun, {{"LOCAL_RANK", "4"}}), {"LOCAL_RANK", "LOCAL_WORLD_SIZE = 4"});
  expect_refused(with(kTorchrun, {{"LOCAL_WORLD_SIZE", "9"}}), {"LOCAL_WORLD_SIZE", "WORLD_SIZE"});
  expect_refused(with(kTorchrun, {{"RANK", "0"}}), {"RANK", "LOCAL_RANK"});
  expect_refused(with(kTorchrun, {{"RANK", "7"}, {"LOCAL_RANK", "0"}}), {"RANK", "LOCAL_RANK"});
  expect_refused(with(kMsrun, {{"RANK_SIZE", "4"}}), {"RANK_SIZE", "MS_WORKER_NUM", "4 and 8"});
  expect_refused(with(kSlurm, {{"SLURM_NODEID", "3"}}), {"3 nodes"});
}

TEST(RankEnvironment, what_is_no_number_is_refused_by_name) {
  for (const char* value : {"-1", "1x", "x", " 1", "1.0", "99999999999999999999", "0x1"})
    expect_refused(with(kTorchrun, {{"RANK", value}}), {"RANK", value});
  expect_refused(with(kTorchrun, {{"WORLD_SIZE", "0"}}), {"WORLD_SIZE"});
  expect_refused(with(kTorchrun, {{"MASTER_PORT", "65536"}}), {"MASTER_PORT"});
  expect_refused(with(kMsrun, {{"MS_ROLE", "MS_PSERVER"}}), {"MS_ROLE", "MS_PSERVER"});
}

}  // namespace
}  // namespace qianli::launch
