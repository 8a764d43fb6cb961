// `qianli launch`: starts the processes of a job on this node, together with the launchers of the
// other nodes, and ends when all of them have ended.
#pragma once

#include <filesystem>
#include <string>

#include "qianli/launch/workers.h"

namespace qianli::launch {

struct LaunchOptions {
  WorkerOptions workers;
  int nodes = 1;
  int node_rank = -1;           // -1: by order of arrival; the node that the address names is 0
  std::string rendezvous_host;  // of node 0; its launcher listens there
  int rendezvous_port = 29400;
  Clock::duration start_timeout = std::chrono::minutes(10);  // Clock::duration::max(): forever
  Clock::duration timeout = std::chrono::minutes(1);         // a node not heard of is lost
  std::filesystem::path messages;                            // a file for the launcher's own words
  bool quiet = false;                                        // nothing on standard streams
};

// The code to exit with: 0, that of the first rank that failed (128 + n for signal n), or an
// ExitCode. Throws Error where the job cannot be started.
int launch(const LaunchOptions& options);

}  // namespace qianli::launch
