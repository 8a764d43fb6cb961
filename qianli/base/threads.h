// How many cores this process may use, and loops over them.
#pragma once

#include <cstdint>
#include <functional>

namespace qianli {

// Cores given to this process: the smaller of its CPU affinity and its cgroup quota (v1 and v2,
// rounded up), at least 1. QIANLI_THREADS overrides.
int available_cores();

// Memory this process may use in bytes: the smaller of the machine's and its cgroup limit.
uint64_t available_memory_bytes();
// Peak resident memory of this process so far, in bytes.
uint64_t peak_resident_bytes();

// Runs body(i) for i in [0, count) on `threads` threads (the caller is one of them), handing out
// indices in order. The first exception is rethrown after all threads have ended.
void parallel_for(int64_t count, int threads, const std::function<void(int64_t)>& body);

}  // namespace qianli
