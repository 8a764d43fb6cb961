// The device part of the C boundary of libqianli_cuda.so (kernels: qianli/ops/cuda/plugin.h), which is
// loaded at run time when a CUDA device is chosen.
// Needs no CUDA or LibTorch header.
//
// Load it before the first backward pass, seeding or device query of the process: LibTorch settles
// once, at the first of these, whether it has CUDA. dlopen(..., RTLD_NOW | RTLD_LOCAL) returns null
// and names the file where a library of LibTorch's CUDA part is missing.
//
// Functions that return nothing throw when they fail: std::bad_alloc when device memory ran out,
// std::runtime_error for other failures of the CUDA runtime, and whatever LibTorch throws (c10::Error;
// its c10::OutOfMemoryError when the caching allocator finds no memory for a kernel's scratch space).
// `device` is an index below qianli_cuda_device_count().
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// 0 without a driver or a device, and then without an error: on such machines nothing below may be
// called.
int qianli_cuda_device_count();

struct QianliCudaDevice {
  char name[256];
  char bus[32];      // "0000:1b:00.0"
  int major, minor;  // compute capability
  int multiprocessors;
  std::int64_t total_bytes,
      free_bytes;                       // free for this process now, whatever LibTorch has reserved
  int runtime_version, driver_version;  // 1000 * major + 10 * minor, 13000 for 13.0
};
void qianli_cuda_device(int device, QianliCudaDevice* result);

// LibTorch's stream of this thread, a cudaStream_t: what the kernels take as Stream.
void* qianli_cuda_current_stream(int device);

// Waits for all work on the device. Failures of earlier kernels appear here.
void qianli_cuda_synchronize(int device);

// LibTorch's caching allocator: bytes in tensors now, the most since the last reset, bytes held
// from the driver now and the most since the last reset.
struct QianliCudaMemory {
  std::int64_t allocated, peak_allocated, reserved, peak_reserved;
};
void qianli_cuda_memory(int device, QianliCudaMemory* result);
void qianli_cuda_reset_peak_memory(int device);
// Gives unused cached memory back to the driver.
void qianli_cuda_empty_cache();
}
