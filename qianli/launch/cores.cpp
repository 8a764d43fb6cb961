#include "qianli/launch/cores.h"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "qianli/base/strings.h"

namespace qianli::launch {
namespace {

namespace fs = std::filesystem;

// /dev/nvidia0, /dev/davinci3; not /dev/nvidiactl.
int devices(std::string_view prefix) {
  int count = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/dev", error)) {
    const std::string name = entry.path().filename();
    if (name.starts_with(prefix) && name.size() > prefix.size() &&
        name.find_first_not_of("0123456789", prefix.size()) == std::string::npos)
      ++count;
  }
  return count;
}

int visible(const Environment& environment, const char* variable, int present) {
  const auto found = environment.find(variable);
  if (found == environment.end()) return present;
  int named = 0;
  for (const auto& part : split(found->second, ',')) {
    const std::string_view name = trim(part);
    if (name.empty() || name.front() == '-') break;  // CUDA ignores what follows
    ++named;
  }
  return std::min(present, named);
}

}  // namespace

std::vector<cpu_set_t> divide_cores(int processes) {
  cpu_set_t own;
  CPU_ZERO(&own);
  std::vector<int> cores;
  if (::sched_getaffinity(0, sizeof own, &own) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core)
      if (CPU_ISSET(core, &own)) cores.push_back(core);
  }
  std::vector<cpu_set_t> parts;
  if (cores.empty()) return parts;
  const auto count = cores.size(), shares = static_cast<size_t>(processes);
  for (size_t i = 0; i < shares; ++i) {
    const size_t begin = i * count / shares, end = std::max(begin + 1, (i + 1) * count / shares);
    cpu_set_t part;
    CPU_ZERO(&part);
    for (size_t core = begin; core < end; ++core) CPU_SET(cores[core], &part);
    parts.push_back(part);
  }
  return parts;
}

int accelerators(const Environment& environment) {
  const int nvidia = visible(environment, "CUDA_VISIBLE_DEVICES", devices("nvidia"));
  return nvidia > 0 ? nvidia
                    : visible(environment, "ASCEND_RT_VISIBLE_DEVICES", devices("davinci"));
}

}  // namespace qianli::launch
