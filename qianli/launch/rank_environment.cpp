#include "qianli/launch/rank_environment.h"

#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "qianli/base/error.h"
#include "qianli/launch/nodelist.h"
#include "qianli/launch/variables.h"

extern char** environ;

namespace qianli::launch {
namespace {

constexpr int kFirstPort = 15000, kPorts = 15000;  // below the ports that systems give to clients

// What the parts have to agree in, whoever wrote them. `names`: of rank, world size, local rank and
// local world size.
void check(const RankEnvironment& self, const std::array<const char*, 4>& names) {
  const auto refuse = [](const std::string& problem) {
    throw ConfigError("launch", "environment: " + problem,
                      "the variables come from different starts: unset those of the older one");
  };
  const auto [rank, world, local_rank, local_world] = names;
  if (self.rank >= self.world_size)
    refuse(
        fmt::format("expected {} below {} = {}, got {}", rank, world, self.world_size, self.rank));
  if (self.local_rank >= self.local_world_size)
    refuse(fmt::format("expected {} below {} = {}, got {}", local_rank, local_world,
                       self.local_world_size, self.local_rank));
  if (self.local_world_size > self.world_size)
    refuse(fmt::format("expected {} of at most {} = {}, got {}", local_world, world,
                       self.world_size, self.local_world_size));
  if (self.local_rank > self.rank ||
      self.world_size - self.rank < self.local_world_size - self.local_rank)
    refuse(fmt::format("expected {} and {} of one place in {} = {}, {} = {}, got {} and {}", rank,
                       local_rank, world, self.world_size, local_world, self.local_world_size,
                       self.rank, self.local_rank));
}

// Nodes in the order of ranks, the same number of ranks on each: what -1 stands for otherwise.
int node_of_blocks(const RankEnvironment& self) {
  if (self.rank % self.local_world_size != self.local_rank) return -1;
  return self.rank / self.local_world_size;
}

// The same port for all processes of a job, another one for most other jobs on the machine.
int port_of_job(std::string_view job) {
  uint32_t hash = 2166136261u;  // FNV-1a
  for (const char c : job) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return kFirstPort + static_cast<int>(hash % kPorts);
}

void take_master(const Variables& variables, RankEnvironment& self) {
  if (variables.has("MASTER_ADDR")) self.master_address = variables.text("MASTER_ADDR");
  if (const auto port = variables.number("MASTER_PORT", 1, 65535)) self.master_port = *port;
}

// Several processes must have a place to meet.
void require_master(const RankEnvironment& self, std::string_view hint) {
  if (self.world_size == 1) return;
  const auto missing = [&](const char* name) {
    throw ConfigError(
        "launch",
        fmt::format("environment: expected {} for a job of {} processes ({}), got none", name,
                    self.world_size, self.source),
        hint);
  };
  if (self.master_address.empty()) missing("MASTER_ADDR");
  if (self.master_port == 0) missing("MASTER_PORT");
}

// torch.distributed.elastic.agent.server.local_elastic_agent, and whatever else speaks its words:
// Kubernetes' PyTorchJob starts one process per pod and sets no LOCAL_*.
RankEnvironment of_torchrun(const Variables& variables) {
  constexpr std::array<const char*, 4> kNames{"RANK", "WORLD_SIZE", "LOCAL_RANK",
                                              "LOCAL_WORLD_SIZE"};
  const char* hint = "torchrun and `qianli launch` set all of them; unset what another tool left";
  RankEnvironment self{.source = "torchrun"};
  self.rank = require(variables.index({"RANK"}), "RANK", "WORLD_SIZE", hint);
  self.world_size = require(variables.count({"WORLD_SIZE"}), "WORLD_SIZE", "RANK", hint);
  if (variables.has("LOCAL_RANK") || variables.has("LOCAL_WORLD_SIZE")) {
    self.local_rank =
        require(variables.index({"LOCAL_RANK"}), "LOCAL_RANK", "LOCAL_WORLD_SIZE", hint);
    self.local_world_size =
        require(variables.count({"LOCAL_WORLD_SIZE"}), "LOCAL_WORLD_SIZE", "LOCAL_RANK", hint);
  }
  check(self, kNames);
  self.node_rank = variables.index({"GROUP_RANK"}).value_or(node_of_blocks(self));
  self.restart_count = variables.index({"TORCHELASTIC_RESTART_COUNT"}).value_or(0);
  self.job_id = variables.text("TORCHELASTIC_RUN_ID");
  self.launcher_serves_store = variables.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  take_master(variables, self);
  require_master(self, hint);
  return self;
}

int agreeing(const Variables& variables, const char* first, const char* second) {
  const auto a = variables.count({first}), b = variables.count({second});
  if (a && b && *a != *b) {
    throw ConfigError("launch", fmt::format("environment: expected {} = {}, got {} and {}", first,
                                            second, *a, *b));
  }
  return require(a ? a : b, fmt::format("{} or {}", first, second), "MS_ROLE or RANK_ID",
                 "msrun sets them");
}

bool is_loopback(std::string_view host) {
  return host.starts_with("127.") || host == "localhost" || host == "::1";
}

// mindspore/python/mindspore/parallel/cluster. DEVICE_ID counts on one machine.
RankEnvironment of_msrun(const Variables& variables) {
  constexpr std::array<const char*, 4> kNames{"RANK_ID", "RANK_SIZE", "DEVICE_ID",
                                              "LOCAL_WORLD_SIZE"};
  RankEnvironment self{.source = "msrun"};
  const std::string role = variables.text("MS_ROLE");
  if (!role.empty() && role != "MS_WORKER" && role != "MS_SCHED") {
    throw ConfigError("launch", fmt::format("environment: expected MS_ROLE MS_WORKER or MS_SCHED, "
                                            "got '{}'",
                                            role.substr(0, 40)));
  }
  self.is_scheduler = role == "MS_SCHED";
  self.world_size = agreeing(variables, "RANK_SIZE", "MS_WORKER_NUM");
  self.master_address = variables.text("MS_SCHED_HOST");
  self.master_port = variables.number("MS_SCHED_PORT", 1, 65535).value_or(0);
  const bool one_machine = self.world_size == 1 || is_loopback(self.master_address);
  take_master(variables, self);
  if (self.is_scheduler) return self;
  self.rank = require(variables.index({"RANK_ID", "MS_NODE_ID"}), "RANK_ID or MS_NODE_ID",
                      "MS_WORKER_NUM", "msrun sets them where it knows node_rank");
  self.local_world_size =
      require(one_machine ? std::optional(self.world_size) : variables.count({"LOCAL_WORLD_SIZE"}),
              "LOCAL_WORLD_SIZE", "MS_SCHED_HOST of another machine",
              "set it to the number of workers per machine, or start with `qianli launch`");
  self.local_rank = variables.index({"DEVICE_ID"}).value_or(self.rank % self.local_world_size);
  check(self, kNames);
  self.node_rank = node_of_blocks(self);
  require_master(self, "msrun sets MS_SCHED_HOST and MS_SCHED_PORT");
  return self;
}

// The names under which one kind of mpirun says the same four things.
struct MpiNames {
  const char* source;
  std::array<const char*, 4> names;  // rank, size, local rank, local size
  const char* job;  // what tells jobs on a machine apart, where there is such a thing
};
constexpr MpiNames kOpenMpi{"openmpi",
                            {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                             "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
                            "PMIX_NAMESPACE"};
constexpr MpiNames kHydra{
    "hydra", {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"}, nullptr};

// mpirun tells nobody where rank 0 runs, so a job on several machines needs MASTER_ADDR.
RankEnvironment of_mpi(const Variables& variables, const MpiNames& mpi) {
  RankEnvironment self{.source = mpi.source};
  const auto [rank, world, local_rank, local_world] = mpi.names;
  const char* hint = "they are set by mpirun; start the program with it";
  self.rank = require(variables.index({rank}), rank, world, hint);
  self.world_size = require(variables.count({world}), world, rank, hint);
  self.local_rank = require(variables.index({local_rank}), local_rank, rank, hint);
  self.local_world_size = require(variables.count({local_world}), local_world, local_rank, hint);
  check(self, mpi.names);
  self.node_rank = node_of_blocks(self);
  if (mpi.job != nullptr) self.job_id = variables.text(mpi.job);
  if (self.local_world_size == self.world_size && self.world_size > 1) {
    self.master_address = "127.0.0.1";
    self.master_port = port_of_job(self.job_id);
  }
  take_master(variables, self);
  if (self.master_port == 0 && !self.master_address.empty())
    self.master_port = port_of_job(self.job_id);
  require_master(self,
                 "name the machine of rank 0: mpirun -x MASTER_ADDR=HOST -x MASTER_PORT=29500");
  return self;
}

// In a batch script SLURM_PROCID is 0 as well; only srun makes a step.
bool in_slurm_step(const Variables& variables) {
  return variables.has("SLURM_PROCID") &&
         (variables.has("SLURM_STEP_ID") || variables.has("SLURM_STEPID") ||
          variables.has("SLURM_STEP_NODELIST") || variables.has("SLURM_STEP_NUM_TASKS"));
}

int slurm_tasks_here(const Variables& variables, const RankEnvironment& self) {
  for (const char* name : {"SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"})
    if (variables.has(name)) return tasks_on_node(variables.text(name), self.node_rank);
  const auto nodes = variables.count({"SLURM_STEP_NUM_NODES", "SLURM_NNODES"});
  return require(nodes == 1 ? std::optional(self.world_size) : std::nullopt, "SLURM_TASKS_PER_NODE",
                 "SLURM_PROCID", "srun sets it");
}

std::string slurm_master(const Variables& variables) {
  for (const char* name : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"})
    if (variables.has(name)) return expand_nodelist(variables.text(name), 1).front();
  return variables.text("SLURM_LAUNCH_NODE_IPADDR");
}

RankEnvironment of_slurm(const Variables& variables) {
  constexpr std::array<const char*, 4> kNames{"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID",
                                              "SLURM_TASKS_PER_NODE"};
  RankEnvironment self{.source = "slurm"};
  self.rank = require(variables.index({"SLURM_PROCID"}), "SLURM_PROCID", "SLURM_STEP_ID", "");
  self.world_size = require(variables.count({"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}),
                            "SLURM_NTASKS", "SLURM_PROCID", "srun sets it");
  self.local_rank =
      require(variables.index({"SLURM_LOCALID"}), "SLURM_LOCALID", "SLURM_PROCID", "srun sets it");
  self.node_rank =
      require(variables.index({"SLURM_NODEID"}), "SLURM_NODEID", "SLURM_PROCID", "srun sets it");
  self.local_world_size = slurm_tasks_here(variables, self);
  check(self, kNames);
  self.restart_count = variables.index({"SLURM_RESTART_COUNT"}).value_or(0);
  self.job_id = variables.text("SLURM_JOB_ID");
  if (self.world_size > 1) {
    self.master_address = slurm_master(variables);
    const std::string step =
        variables.text(variables.has("SLURM_STEP_ID") ? "SLURM_STEP_ID" : "SLURM_STEPID");
    self.master_port = port_of_job(self.job_id + "." + step);
  }
  take_master(variables, self);
  require_master(self, "srun sets SLURM_STEP_NODELIST");
  return self;
}

// PMI's own variables say nothing of machines.
RankEnvironment of_pmi(const Variables& variables) {
  if (variables.count({"PMI_SIZE"}) == 1) return {.source = "pmi"};
  throw ConfigError("launch",
                    fmt::format("environment: expected MPI_LOCALRANKID beside {}, got none",
                                variables.has("PMIX_RANK") ? "PMIX_RANK" : "PMI_RANK"),
                    "the launcher does not tell which processes share a machine: use mpirun of "
                    "Open MPI, mpiexec of MPICH or Intel MPI, srun, or `qianli launch`");
}

RankEnvironment of_none(const Variables& variables) {
  RankEnvironment self;
  const auto tasks = variables.has("SLURM_PROCID") ? variables.count({"SLURM_NTASKS"}) : 1;
  if (tasks.value_or(1) > 1) {
    self.notice =
        fmt::format("in a Slurm job of {} tasks, but not started by srun: one process", *tasks);
  }
  return self;
}

}  // namespace

Environment process_environment() {
  Environment environment;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string_view::npos)
      environment.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return environment;
}

RankEnvironment rank_environment(const Environment& environment) {
  const Variables variables(environment);
  const auto any = [&](std::initializer_list<const char*> names) {
    for (const char* name : names)
      if (variables.has(name)) return true;
    return false;
  };
  if (any({"RANK", "WORLD_SIZE"})) return of_torchrun(variables);
  if (any({"MS_ROLE", "MS_WORKER_NUM", "RANK_ID", "RANK_SIZE"})) return of_msrun(variables);
  if (any({"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"})) return of_mpi(variables, kOpenMpi);
  if (any({"MPI_LOCALRANKID", "MPI_LOCALNRANKS"})) return of_mpi(variables, kHydra);
  if (in_slurm_step(variables)) return of_slurm(variables);
  if (any({"PMI_RANK", "PMI_SIZE", "PMIX_RANK"})) return of_pmi(variables);
  return of_none(variables);
}

}  // namespace qianli::launch
