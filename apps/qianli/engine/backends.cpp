#include <fmt/core.h>

#include "apps/qianli/engine/commands.h"
#include "qianli/base/json.h"
#include "qianli/device/device.h"
#include "qianli/ops/dispatch.h"

namespace qianli::app {

void run_backends(bool json) {
  device::start();
  ops::load_cuda_kernels();
  const auto rows = ops::backend_rows();
  if (json) {
    OrderedJson list = OrderedJson::array();
    for (const auto& row : rows) {
      list.push_back({{"op", row.op},
                      {"device", row.device},
                      {"dtype", row.dtype},
                      {"implementation", row.implementation}});
    }
    fmt::print("{}\n", list.dump(2));
    return;
  }
  fmt::print("{:<17}{:<8}{:<8}{}\n", "op", "device", "dtype", "implementation");
  for (const auto& row : rows)
    fmt::print("{:<17}{:<8}{:<8}{}\n", row.op, row.device, row.dtype, row.implementation);
  if (!device::CudaLibrary::get().available())
    fmt::print("cuda: {}\n", device::CudaLibrary::get().why());
}

}  // namespace qianli::app
