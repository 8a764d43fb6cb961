// The C boundary to libraries with communicators of devices: libqianli_cuda.so (NCCL) and
// libqianli_npu.so (HCCL), which are loaded at run time. Needs no header of theirs.
#pragma once

#include <cstdint>

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

extern "C" {

struct QianliCommunicator {
  c10d::Store* store;  // borrowed; the communicator keeps a reference
  int rank, size;
  int device;
  const char* name;
  bool carries_messages;            // between two ranks, one way
  std::int64_t min_ctas, max_ctas;  // 0: the library's choice; others than NCCL have none
  std::int64_t buffer_bytes;        // 0: the library's choice
};

// Once, before the first communicator, while no other thread reads the environment: what a lost
// rank means is decided by the caller and not by the library. `buffer_bytes` for all communicators
// where the library has one size for all; 0: its choice.
void qianli_set_up_communicators(std::int64_t buffer_bytes);

// Meets the other ranks in the store. The caller owns the reference. Throws c10::Error.
c10d::Backend* qianli_communicator(const QianliCommunicator* wanted);
}
