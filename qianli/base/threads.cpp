#include "qianli/base/threads.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace qianli {
namespace {

int affinity_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) {
    return std::max(1u, std::thread::hardware_concurrency());
  }
  return std::max(1, CPU_COUNT(&set));
}

// The folder of this process in a cgroup hierarchy; "/" where it cannot be told.
std::string cgroup_path(const std::string& controller) {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controllers == controller ||
        (!controller.empty() && controllers.find(controller) != std::string::npos)) {
      return line.substr(second + 1);
    }
  }
  return "/";
}

// Calls visit(folder) for the process's own group and all its parents.
void for_each_group(const std::string& mount, std::string path,
                    const std::function<void(const std::string&)>& visit) {
  for (;;) {
    visit(mount + (path == "/" ? "" : path));
    if (path.empty() || path == "/") return;
    const size_t slash = path.rfind('/');
    path = slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
  }
}

double cgroup_cores() {
  double cores = std::numeric_limits<double>::infinity();
  for_each_group("/sys/fs/cgroup", cgroup_path(""), [&](const std::string& folder) {
    std::ifstream file(folder + "/cpu.max");
    std::string quota;
    double period = 0;
    if (file >> quota >> period && quota != "max" && period > 0) {
      cores = std::min(cores, std::strtod(quota.c_str(), nullptr) / period);
    }
  });
  for_each_group("/sys/fs/cgroup/cpu", cgroup_path("cpu"), [&](const std::string& folder) {
    std::ifstream quota_file(folder + "/cpu.cfs_quota_us"),
        period_file(folder + "/cpu.cfs_period_us");
    double quota = 0, period = 0;
    if (quota_file >> quota && period_file >> period && quota > 0 && period > 0) {
      cores = std::min(cores, quota / period);
    }
  });
  return cores;
}

}  // namespace

int available_cores() {
  if (const char* wanted = std::getenv("QIANLI_THREADS")) {
    const int threads = std::atoi(wanted);
    if (threads > 0) return threads;
  }
  const double limit = cgroup_cores();
  const int cores = affinity_cores();
  return limit < cores ? std::max(1, static_cast<int>(std::ceil(limit))) : cores;
}

uint64_t available_memory_bytes() {
  uint64_t bytes = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                   static_cast<uint64_t>(::sysconf(_SC_PAGE_SIZE));
  const auto apply = [&](const std::string& path) {
    std::ifstream file(path);
    std::string text;
    if (file >> text && text != "max")
      bytes = std::min<uint64_t>(bytes, std::strtoull(text.c_str(), nullptr, 10));
  };
  for_each_group("/sys/fs/cgroup", cgroup_path(""),
                 [&](const std::string& folder) { apply(folder + "/memory.max"); });
  for_each_group("/sys/fs/cgroup/memory", cgroup_path("memory"),
                 [&](const std::string& folder) { apply(folder + "/memory.limit_in_bytes"); });
  return bytes;
}

uint64_t peak_resident_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

void parallel_for(int64_t count, int threads, const std::function<void(int64_t)>& body) {
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  const auto work = [&] {
    for (int64_t i; (i = next.fetch_add(1)) < count;) {
      try {
        body(i);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        next = count;
      }
    }
  };
  std::vector<std::thread> others;
  const int64_t helpers = std::min<int64_t>(threads, count) - 1;
  for (int64_t t = 0; t < helpers; ++t) others.emplace_back(work);
  work();
  for (auto& thread : others) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace qianli
