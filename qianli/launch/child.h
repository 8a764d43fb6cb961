// Starting one process of a job.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "qianli/launch/descriptor.h"
#include "qianli/launch/rank_environment.h"

namespace qianli::launch {

struct Child {
  pid_t process = -1;
  Descriptor handle;  // readable when the process has ended
  Descriptor output, error;
};

// The process leads a group of its own, dies with the calling thread, reads nothing from standard
// input and starts with default signals. Throws std::system_error.
Child start_child(const std::filesystem::path& program, const std::vector<std::string>& arguments,
                  const Environment& environment, const std::optional<cpu_set_t>& cores);

// Where the shell would find it. Throws ConfigError where there is no such program.
std::filesystem::path find_program(const std::string& name);

}  // namespace qianli::launch
