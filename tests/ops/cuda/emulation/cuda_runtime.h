// Enough of CUDA to run the project's kernels on the host, for tests on machines without a GPU:
// this folder comes first in the include path of that test and stands in for the toolkit's headers.
// The threads of a block are fibers that switch at barriers and shuffles; blocks run one after the
// other.
#pragma once

#include <math.h>

#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __shared__ static

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
constexpr int cudaMemcpyHostToDevice = 1;

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, int,
                                   cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

namespace emulation {
// The 8 bytes that the thread `lane ^ mask` of this warp passes to the same call.
std::uint64_t exchange(std::uint64_t bits, int mask);
}  // namespace emulation

void __syncthreads();

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = emulation::exchange(bits, mask);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
