#include "qianli/ops/cuda/plugin.h"

#include <ATen/Context.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <cstdio>

#include "qianli/ops/cuda/scratch.h"
#include "qianli/ops/cuda/status.h"
#include "qianli/ops/cuda/table.h"

namespace qianli::ops::cuda {
namespace {

// The caching allocator has no devices until LibTorch's CUDA part is initialised.
void initialise() { at::globalContext().lazyInitDevice(at::kCUDA); }

c10::DeviceIndex index(int device) { return static_cast<c10::DeviceIndex>(device); }

}  // namespace

Scratch::Scratch(std::size_t bytes, Stream stream) {
  initialise();
  // A request for no bytes would come back as a null pointer, which some users take for a question.
  data_ = c10::cuda::CUDACachingAllocator::raw_alloc_with_stream(bytes > 0 ? bytes : 1,
                                                                 static_cast<cudaStream_t>(stream));
}

Scratch::~Scratch() { c10::cuda::CUDACachingAllocator::raw_delete(data_); }

}  // namespace qianli::ops::cuda

using qianli::ops::cuda::check;
using qianli::ops::cuda::index;
using qianli::ops::cuda::initialise;

#define QIANLI_EXPORT extern "C" __attribute__((visibility("default")))

QIANLI_EXPORT const qianli::ops::KernelTable* qianli_cuda_kernels() {
  return &qianli::ops::cuda::kernels();
}

QIANLI_EXPORT int qianli_cuda_device_count() { return c10::cuda::device_count(); }

QIANLI_EXPORT void qianli_cuda_device(int device, QianliCudaDevice* result) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "the device query");
  std::snprintf(result->name, sizeof(result->name), "%s", properties.name);
  check(cudaDeviceGetPCIBusId(result->bus, sizeof(result->bus), device), "the bus query");
  result->major = properties.major;
  result->minor = properties.minor;
  result->multiprocessors = properties.multiProcessorCount;
  const c10::cuda::CUDAGuard guard(index(device));
  std::size_t free_bytes = 0, total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "the memory query");
  result->total_bytes = static_cast<std::int64_t>(total_bytes);
  result->free_bytes = static_cast<std::int64_t>(free_bytes);
  check(cudaRuntimeGetVersion(&result->runtime_version), "the version query");
  check(cudaDriverGetVersion(&result->driver_version), "the version query");
}

QIANLI_EXPORT void* qianli_cuda_current_stream(int device) {
  return c10::cuda::getCurrentCUDAStream(index(device)).stream();
}

QIANLI_EXPORT void qianli_cuda_synchronize(int device) {
  const c10::cuda::CUDAGuard guard(index(device));
  check(cudaDeviceSynchronize(), "the queued kernels");
}

QIANLI_EXPORT void qianli_cuda_memory(int device, QianliCudaMemory* result) {
  initialise();
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(index(device));
  const auto& allocated = stats.allocated_bytes[0];  // 0: the sum over the pools
  const auto& reserved = stats.reserved_bytes[0];
  *result = {allocated.current, allocated.peak, reserved.current, reserved.peak};
}

QIANLI_EXPORT void qianli_cuda_reset_peak_memory(int device) {
  initialise();
  c10::cuda::CUDACachingAllocator::resetPeakStats(index(device));
}

QIANLI_EXPORT void qianli_cuda_empty_cache() {
  initialise();
  c10::cuda::CUDACachingAllocator::emptyCache();
}
