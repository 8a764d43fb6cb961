// An environment from strangers, one NAME=VALUE a line, and the same bytes as Slurm's lists.
#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/launch/nodelist.h"
#include "qianli/launch/rank_environment.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  const std::string text(reinterpret_cast<const char*>(data), size);
  launch::Environment environment;
  for (const std::string& line : split(text, '\n')) {
    const size_t equals = line.find('=');
    if (equals != std::string::npos) environment[line.substr(0, equals)] = line.substr(equals + 1);
  }
  try {
    const auto self = launch::rank_environment(environment);
    fuzz::require(self.is_scheduler || self.rank < self.world_size, "the rank is of the job");
    fuzz::require(self.local_rank < self.local_world_size, "the local rank is of the machine");
    fuzz::require(self.local_world_size <= self.world_size, "the machine is part of the job");
  } catch (const Error&) {
  }
  try {
    constexpr size_t kMost = 100;
    fuzz::require(launch::expand_nodelist(text, kMost).size() <= kMost, "hosts are bounded");
  } catch (const Error&) {
  }
  try {
    fuzz::require(launch::tasks_on_node(text, 3) >= 0, "a count is no negative number");
  } catch (const Error&) {
  }
  return 0;
}
