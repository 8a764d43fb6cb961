// Which process of a job is this? The answer that torchrun, `qianli launch`, msrun, Open MPI, MPICH
// (Hydra, Intel MPI) and Slurm put into the environment of every process they start.
//
// Where several have left their variables (torchrun under srun), the innermost one decides; the
// order is: torchrun's, msrun's, Open MPI's, Hydra's, Slurm's, plain PMI. MASTER_ADDR and
// MASTER_PORT replace the address that any of them gives. None of them: one process, rank 0.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

namespace qianli::launch {

// Names and values of environment variables. An empty value counts as absent.
using Environment = std::map<std::string, std::string, std::less<>>;

// Of this process.
Environment process_environment();

struct RankEnvironment {
  std::string source = "none";  // torchrun, msrun, openmpi, hydra, slurm, pmi or none
  int world_size = 1;
  int rank = 0;
  int local_world_size = 1;  // processes of the job on this machine
  int local_rank = 0;        // among them: chooses the device
  int node_rank = 0;         // -1 where the launcher does not tell it
  // Where the processes meet. Empty and 0 where there is one process and nothing was given.
  std::string master_address;
  int master_port = 0;
  // True: the launcher serves a c10d TCPStore at that address, and rank 0 is a client as all others
  // are (TORCHELASTIC_USE_AGENT_STORE). False: rank 0 has to serve it.
  bool launcher_serves_store = false;
  int restart_count = 0;  // how often the job was started again
  std::string job_id;     // as the launcher calls it; may be empty
  // msrun starts one more process, its scheduler. It is no rank: it has nothing to do here and
  // should end with success.
  bool is_scheduler = false;
  std::string notice;  // a sentence the user should see, or empty

  bool operator==(const RankEnvironment&) const = default;
};

// Throws ConfigError naming the variables where some are missing, contradict each other or are no
// numbers.
RankEnvironment rank_environment(const Environment& environment);

}  // namespace qianli::launch
