// Sums and maxima over the threads of a row, in an order fixed by the shape of the block.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "qianli/ops/cuda/pack.cuh"

namespace qianli::ops::cuda {

constexpr int kWarp = 32;

// Rows laid on blocks: narrow rows take a warp each and share a block, wide rows take a whole
// block.
struct RowBlocks {
  dim3 grid, block;
};
inline RowBlocks row_blocks(int64_t rows, int64_t accesses_per_row, int most_threads) {
  int threads = kWarp;
  while (threads < accesses_per_row && threads < most_threads) threads *= 2;
  const int rows_per_block = threads == kWarp ? 8 : 1;
  return {dim3(grid_size(ceil_div(rows, rows_per_block))), dim3(threads, rows_per_block)};
}

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Every lane gets the same bits: the butterfly pairs equal operands in every lane.
template <class T, class Combine>
__device__ T warp_reduce(T value, Combine combine) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  return value;
}

// Over the threads with one threadIdx.y; the result reaches all of them. Blocks as row_blocks makes
// them: either one warp per row or one row per block. All threads of the row must call.
template <class T, class Combine>
__device__ T row_reduce(T value, T neutral, Combine combine) {
  value = warp_reduce(value, combine);
  if (blockDim.x == kWarp) return value;
  __shared__ T of_warp[kWarp];
  const int lane = threadIdx.x % kWarp;
  if (lane == 0) of_warp[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = lane < static_cast<int>(blockDim.x) / kWarp ? of_warp[lane] : neutral;
  value = warp_reduce(value, combine);
  __syncthreads();  // of_warp may be written by the next reduction
  return value;
}

template <class T>
__device__ T row_sum(T value) {
  return row_reduce(value, T(0), Sum());
}

}  // namespace qianli::ops::cuda
