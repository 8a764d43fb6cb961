#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <stdexcept>
#include <string>

#include "qianli/ops/cuda/plugin.h"
#include "tests/ops/cuda/backend.h"

namespace qianli::testing {
namespace {

struct Plugin {
  const ops::KernelTable* table = nullptr;
  std::string missing;
  ops::Stream stream = nullptr;
};

Plugin open_plugin() {
  Plugin plugin;
  void* library = dlopen(QIANLI_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    plugin.missing = std::string("LibTorch's CUDA libraries are not complete: ") + dlerror();
    return plugin;
  }
  const auto function = [&](auto* type, const char* name) {
    void* found = dlsym(library, name);
    if (!found) throw std::runtime_error(std::string("libqianli_cuda.so lacks ") + name);
    return reinterpret_cast<decltype(type)>(found);
  };
  if (function(&qianli_cuda_device_count, "qianli_cuda_device_count")() == 0) {
    plugin.missing = "no CUDA device";
    return plugin;
  }
  plugin.table = function(&qianli_cuda_kernels, "qianli_cuda_kernels")();
  plugin.stream = function(&qianli_cuda_current_stream, "qianli_cuda_current_stream")(0);
  return plugin;
}

const Plugin& plugin() {
  static const Plugin opened = open_plugin();
  return opened;
}

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

}  // namespace

const ops::KernelTable* kernels() { return plugin().table; }
const char* why_no_kernels() { return plugin().missing.c_str(); }
ops::Stream stream() { return plugin().stream; }

void* device_allocate(std::size_t bytes) {
  void* data = nullptr;
  check(cudaMalloc(&data, bytes));
  return data;
}
void device_free(void* data) { cudaFree(data); }
void copy_to_device(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}
void copy_to_host(void* to, const void* from, std::size_t bytes) {
  check(cudaStreamSynchronize(static_cast<cudaStream_t>(stream())));
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

}  // namespace qianli::testing
