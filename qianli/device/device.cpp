#include "qianli/device/device.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <mutex>

#include "qianli/base/error.h"
#include "qianli/base/threads.h"
#include "qianli/device/cuda_plugin.h"
#include "qianli/device/local_device.h"
#include "qianli/device/npu_plugin.h"

namespace qianli::device {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// A function of the CUDA library, which is loaded whenever a CUDA device was chosen.
template <class Function>
Function cuda_function(const char* name) {
  const auto function = reinterpret_cast<Function>(CudaLibrary::get().symbol(name));
  TORCH_INTERNAL_ASSERT(function, "the CUDA library lacks ", name);
  return function;
}

template <class Function>
Function npu_function(const char* name) {
  const auto function = reinterpret_cast<Function>(NpuLibrary::get().symbol(name));
  TORCH_INTERNAL_ASSERT(function, "the NPU library lacks ", name);
  return function;
}

bool has_feature(const char* name) {
  const auto features = cpu_features();
  return std::find(features.begin(), features.end(), name) != features.end();
}

}  // namespace

void start(int64_t processes) {
  static std::once_flag once;
  std::call_once(once, [&] {
    install_caching_allocator();
    const bool given = std::getenv("QIANLI_THREADS") != nullptr;
    const auto share = static_cast<int>(available_cores() / (given ? 1 : processes));
    at::set_num_threads(std::max(share, 1));
  });
}

int threads() { return at::get_num_threads(); }

c10::DeviceIndex local_device(int64_t devices, LocalPlace place) {
  if (devices == 1) return 0;
  if (devices >= place.count) return static_cast<c10::DeviceIndex>(place.index);
  throw ConfigError(
      "device",
      fmt::format("expected a device for each of the {} ranks on this machine, got {} devices",
                  place.count, devices),
      "start as many ranks as there are devices, or use device=cpu");
}

namespace {

c10::Device own_of(c10::DeviceType type, int64_t devices, LocalPlace place) {
  const c10::Device own(type, local_device(devices, place));
  c10::impl::VirtualGuardImpl(type).setDevice(own);
  return own;
}

}  // namespace

c10::Device choose(const std::string& wanted, LocalPlace place) {
  if (wanted == "cpu") return c10::Device(c10::kCPU);
  if (wanted == "npu") {
    const NpuLibrary& npu = NpuLibrary::get();
    if (npu.devices() > 0) return own_of(c10::kPrivateUse1, npu.devices(), place);
    throw ConfigError("device", fmt::format("expected an NPU, got none: {}", npu.why()),
                      "docs/launch.md says what an NPU needs; or use device=cpu");
  }
  const CudaLibrary& cuda = CudaLibrary::get();
  if (cuda.available()) return own_of(c10::kCUDA, std::ssize(cuda.devices()), place);
  if (wanted == "auto") return c10::Device(c10::kCPU);
  throw ConfigError("device", fmt::format("expected a CUDA device, got none: {}", cuda.why()),
                    "use device=cpu or see `qianli doctor`");
}

std::string identity(c10::Device device) {
  return device.is_cuda() ? CudaLibrary::get().devices().at(device.index()).bus : std::string();
}

const char* dtype_name(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::ScalarType::Float:
      return "fp32";
    case c10::ScalarType::BFloat16:
      return "bf16";
    case c10::ScalarType::Double:
      return "fp64";
    default:
      return c10::toString(dtype);
  }
}

ComputeType choose_compute_type(const std::string& precision, c10::Device device) {
  if (precision == "fp32") return {c10::kFloat, "fp32 as configured"};
  if (precision == "bf16") return {c10::kBFloat16, "bf16 as configured, fp32 master weights"};
  if (precision == "fp64") return {c10::kDouble, "fp64 as configured"};
  if (device.is_privateuseone())
    return {c10::kBFloat16, "bf16: the NPU multiplies bf16; fp32 master weights"};
  if (device.is_cuda()) {
    if (CudaLibrary::get().devices()[device.index()].major >= 8) {
      return {c10::kBFloat16, "bf16: the GPU has bf16 tensor cores; fp32 master weights"};
    }
    return {c10::kFloat, "fp32: the GPU has no bf16 tensor cores"};
  }
  for (const char* feature : {"amx_bf16", "avx512_bf16"}) {
    if (has_feature(feature)) {
      return {
          c10::kBFloat16,
          fmt::format("bf16: the CPU multiplies bf16 natively ({}); fp32 master weights", feature)};
    }
  }
  return {c10::kFloat,
          "fp32: this CPU has no bf16 instructions (AVX-512 BF16 or AMX), bf16 would be emulated"};
}

void synchronize(c10::Device device) {
  if (device.is_privateuseone())
    return c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
  if (!device.is_cuda()) return;
  cuda_function<decltype(&qianli_cuda_synchronize)>("qianli_cuda_synchronize")(device.index());
}

Memory memory(c10::Device device) {
  if (device.is_cuda()) {
    QianliCudaMemory found{};
    cuda_function<decltype(&qianli_cuda_memory)>("qianli_cuda_memory")(device.index(), &found);
    return {static_cast<uint64_t>(found.allocated), static_cast<uint64_t>(found.peak_allocated)};
  }
  if (device.is_privateuseone()) {
    QianliNpuMemory found{};
    npu_function<decltype(&qianli_npu_memory)>("qianli_npu_memory")(device.index(), &found);
    return {static_cast<uint64_t>(found.allocated), static_cast<uint64_t>(found.peak_allocated)};
  }
  const HostMemory host = host_memory();
  return {host.in_use_bytes, host.peak_in_use_bytes};
}

double fastest_seconds(c10::Device device, double budget, const std::function<void()>& work) {
  work();
  synchronize(device);
  double best = std::numeric_limits<double>::infinity();
  const auto begin = std::chrono::steady_clock::now();
  int runs = 0;
  while (runs++ < 3 || seconds_since(begin) < budget) {
    const auto start = std::chrono::steady_clock::now();
    work();
    synchronize(device);
    best = std::min(best, seconds_since(start));
  }
  return best;
}

double measure_bandwidth(c10::Device device) {
  const int64_t count = int64_t{1} << (device.is_cpu() ? 25 : 28);
  const at::Tensor source =
      at::zeros({count}, at::TensorOptions().device(device).dtype(c10::kFloat));
  at::Tensor target = at::empty_like(source);
  const double seconds = fastest_seconds(device, 0.2, [&] { target.copy_(source); });
  return 2.0 * 4.0 * static_cast<double>(count) / seconds;
}

}  // namespace qianli::device
