// Opens the NPU library lazily, before the first backward pass, as the CUDA library is.
#include <dlfcn.h>
#include <fmt/core.h>

#include <exception>

#include "qianli/device/device.h"
#include "qianli/device/npu_plugin.h"
#include "qianli/base/own_folder.h"

namespace qianli::device {

const NpuLibrary& NpuLibrary::get() {
  static const NpuLibrary library;
  return library;
}

NpuLibrary::NpuLibrary() {
  const auto path = own_folder() / "libqianli_npu.so";
  if (!std::filesystem::exists(path)) {
    why_ =
        "this build has no NPU library (it is built where QIANLI_TORCH_NPU_DIR names an unpacked "
        "torch_npu 2.11 from PyPI)";
    return;
  }
  handle_ = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle_) {
    why_ = fmt::format("the NPU library does not load: {} (CANN's set_env.sh names its libraries)",
                       ::dlerror());
    return;
  }
  try {
    if (const auto count =
            reinterpret_cast<decltype(&qianli_npu_device_count)>(symbol("qianli_npu_device_count")))
      devices_ = count();
    if (devices_ == 0) why_ = "the driver reports no NPU";
  } catch (const std::exception& error) {
    why_ = fmt::format("CANN does not start: {}", error.what());
  }
}

void* NpuLibrary::symbol(const char* name) const {
  return handle_ ? ::dlsym(handle_, name) : nullptr;
}

}  // namespace qianli::device
