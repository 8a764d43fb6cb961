// The device part of the C boundary of libqianli_npu.so, which is loaded at run time when an NPU is
// asked for; its communicators: qianli/dist/communicator_plugin.h. Needs no header of torch_npu or
// LibTorch. Functions that return nothing throw when they fail.
#pragma once

#include <cstdint>

extern "C" {

// Starts CANN for the process. 0 without a driver or a device, and then without an error.
int qianli_npu_device_count();

struct QianliNpuMemory {
  std::int64_t allocated, peak_allocated;  // bytes in tensors now, and the most so far
};
void qianli_npu_memory(int device, QianliNpuMemory* result);
}
