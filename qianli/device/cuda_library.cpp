// Opens the CUDA library lazily. It must happen before the first backward pass, because LibTorch
// creates its device hooks once and remembers that there was no CUDA.
#include <dlfcn.h>
#include <fmt/core.h>

#include <filesystem>

#include "qianli/device/cuda_plugin.h"
#include "qianli/device/device.h"
#include "qianli/base/own_folder.h"

namespace qianli::device {

const CudaLibrary& CudaLibrary::get() {
  static const CudaLibrary library;
  return library;
}

CudaLibrary::CudaLibrary() {
  const auto path = own_folder() / "libqianli_cuda.so";
  if (!std::filesystem::exists(path)) {
    why_ = "this build has no CUDA library (it is built where nvcc is found)";
    return;
  }
  // Without a driver there is nothing to open, and opening costs 0.3 s.
  if (void* driver = ::dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL)) {
    ::dlclose(driver);
  } else {
    why_ = "no NVIDIA driver on this machine";
    return;
  }
  handle_ = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle_) {
    why_ = fmt::format("the CUDA library does not load: {}", ::dlerror());
    return;
  }
  const auto count =
      reinterpret_cast<decltype(&qianli_cuda_device_count)>(symbol("qianli_cuda_device_count"));
  const auto describe =
      reinterpret_cast<decltype(&qianli_cuda_device)>(symbol("qianli_cuda_device"));
  const int devices = count ? count() : 0;
  for (int i = 0; describe && i < devices; ++i) {
    QianliCudaDevice found{};
    describe(i, &found);
    devices_.push_back({.name = found.name,
                        .total_bytes = static_cast<uint64_t>(found.total_bytes),
                        .major = found.major,
                        .minor = found.minor,
                        .bus = found.bus});
  }
  if (devices_.empty()) why_ = "the driver reports no CUDA device";
}

void* CudaLibrary::symbol(const char* name) const {
  return handle_ ? ::dlsym(handle_, name) : nullptr;
}

}  // namespace qianli::device
