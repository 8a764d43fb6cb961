#include "qianli/ops/peak.h"

#include <ATen/ops/rand.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "qianli/device/device.h"
#include "qianli/ops/gemm.h"

namespace qianli::ops {

double measure_gemm_flops(c10::Device device, c10::ScalarType dtype, double seconds) {
  const int64_t n = device.is_cuda() ? 8192 : 1024;
  const auto options = at::TensorOptions().device(device).dtype(c10::kFloat);
  const at::Tensor a = at::rand({n, n}, options).to(dtype), b = at::rand({n, n}, options).to(dtype);
  const double fastest = device::fastest_seconds(device, seconds, [&] { gemm_nt(a, b); });
  const auto size = static_cast<double>(n);
  return 2.0 * size * size * size / fastest;
}

double peak_flops(c10::Device device, c10::ScalarType dtype, double reached) {
  static std::mutex mutex;
  static std::map<std::pair<c10::DeviceType, c10::ScalarType>, double> known;
  std::lock_guard lock(mutex);
  double& peak = known[{device.type(), dtype}];
  // Short, because a run waits for it before its first line.
  constexpr double kSeconds = 0.08;
  if (peak < reached || peak == 0) {
    peak = std::max({peak, reached, measure_gemm_flops(device, dtype, kSeconds)});
  }
  return peak;
}

}  // namespace qianli::ops
