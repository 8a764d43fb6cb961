// Starting a kernel, the one place where the launch syntax appears. Every start is checked, so that
// a refused configuration names its kernel instead of surfacing at a later call.
#pragma once

#include <cuda_runtime.h>

#include "qianli/ops/cuda/status.h"
#include "qianli/ops/kernels.h"

namespace qianli::ops::cuda {

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, Stream stream,
            const Arguments&... arguments) {
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(
      static_cast<Parameters>(arguments)...);
  check(cudaGetLastError(), name);
}

}  // namespace qianli::ops::cuda
