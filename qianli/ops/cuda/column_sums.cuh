// Gradients of weights that every row adds to: column sums in two stages, partial sums of chunks of
// rows and then the chunks in order, so that the result depends on the shape alone.
#pragma once

#include <algorithm>

#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/reduce.cuh"

namespace qianli::ops::cuda {

constexpr int kLanes = 8;  // rows summed side by side in a block of 32 x kLanes threads

// Adds, for each of the 32 * N columns of this block, the values of the kLanes threads that share
// it and writes the sums to to[column]. All threads of the block must call.
template <int N>
__device__ void store_column_sums(const float (&value)[N], float* to, int64_t columns_left) {
  __shared__ float lanes[kLanes][kWarp * N];
#pragma unroll
  for (int j = 0; j < N; ++j) lanes[threadIdx.y][threadIdx.x * N + j] = value[j];
  __syncthreads();
  for (int column = threadIdx.y * kWarp + threadIdx.x; column < kWarp * N && column < columns_left;
       column += kLanes * kWarp) {
    float total = 0;
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) total += lanes[lane][column];
    to[column] = total;
  }
  __syncthreads();  // lanes may be written by the next call
}

// to[column] += sum over chunks. Block of 32 columns.
static __global__ void add_chunks_kernel(const float* partial, int64_t chunks, int64_t width,
                                         float* to) {
  __shared__ float lanes[kLanes][kWarp];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  float total = 0;
  if (column < width) {
    for (int64_t chunk = threadIdx.y; chunk < chunks; chunk += kLanes) {
      total += partial[chunk * width + column];
    }
  }
  lanes[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y == 0 && column < width) {
    for (int lane = 1; lane < kLanes; ++lane) total += lanes[lane][threadIdx.x];
    to[column] += total;
  }
}

// About a thousand blocks, each with at least 64 rows: enough for any device, and the same sums on
// all.
struct Chunks {
  int64_t tiles, rows_per_chunk, count;

  Chunks(int64_t rows, int64_t columns, int columns_per_thread)
      : tiles(ceil_div(columns, kWarp * columns_per_thread)),
        rows_per_chunk(ceil_div(rows, std::clamp<int64_t>(1024 / tiles, 1, ceil_div(rows, 64)))),
        count(ceil_div(rows, rows_per_chunk)) {}
  dim3 grid() const { return dim3(grid_size(tiles), grid_size(count, 65535)); }
  static dim3 block() { return dim3(kWarp, kLanes); }
};

// to[column] += the partial sums [chunks, columns] in order.
inline void add_chunks(const char* name, const float* partial, int64_t chunks, int64_t columns,
                       float* to, Stream stream) {
  launch(name, add_chunks_kernel, dim3(grid_size(ceil_div(columns, kWarp))), Chunks::block(),
         stream, partial, chunks, columns, to);
}

}  // namespace qianli::ops::cuda
