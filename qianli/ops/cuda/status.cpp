#include "qianli/ops/cuda/status.h"

#include <cuda_runtime_api.h>

#include <new>
#include <stdexcept>
#include <string>

namespace qianli::ops::cuda {

void check(int status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears it, so that it is not reported again by an innocent call
  if (status == cudaErrorMemoryAllocation) throw std::bad_alloc();
  throw std::runtime_error(std::string("[cuda] expected ") + what +
                           " to run, got: " + cudaGetErrorString(static_cast<cudaError_t>(status)));
}

}  // namespace qianli::ops::cuda
