#pragma once

#include <cuda_runtime.h>

#include <functional>

#include "qianli/ops/cuda/status.h"
#include "qianli/ops/kernels.h"

namespace emulation {
void run(const char* name, dim3 grid, dim3 block, const std::function<void()>& thread);
}  // namespace emulation

namespace qianli::ops::cuda {

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, Stream,
            const Arguments&... arguments) {
  emulation::run(name, grid, block, [&] { kernel(static_cast<Parameters>(arguments)...); });
}

}  // namespace qianli::ops::cuda
