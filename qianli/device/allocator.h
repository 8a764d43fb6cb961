// A caching allocator for CPU tensors. LibTorch maps and unmaps every large temporary, and on a CPU the
// page faults cost more than the arithmetic; here a freed block waits for the next request of its size,
// and large blocks ask for huge pages.
#pragma once

#include <cstdint>

namespace qianli::device {

// Replaces LibTorch's CPU allocator for the rest of the process. Safe to call more than once.
void install_caching_allocator();

struct HostMemory {
  uint64_t in_use_bytes = 0;       // held by tensors now
  uint64_t peak_in_use_bytes = 0;  // the most since the start or reset_peak_host_memory()
  uint64_t cached_bytes = 0;       // free blocks waiting
};
HostMemory host_memory();
void reset_peak_host_memory();
// Gives all free blocks back to the system.
void release_cached_host_memory();

}  // namespace qianli::device
