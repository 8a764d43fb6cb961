// Element-wise work on a matrix: blocks tile it, so that no thread divides an index by the width.
#pragma once

#include <algorithm>

#include "qianli/ops/cuda/pack.cuh"

namespace qianli::ops::cuda {

struct Tiles {
  dim3 grid, block;
};

// Threads (x: packs of a row, y: rows). Blocks in y stride over the rows: their number is limited.
inline Tiles tiles(int64_t rows, int64_t packs_per_row) {
  unsigned x = 256;
  while (x > 1 && x / 2 >= packs_per_row) x /= 2;
  const dim3 block(x, 256 / x);
  const int64_t row_blocks = std::min<int64_t>(ceil_div(rows, block.y), 65535);
  return {dim3(grid_size(ceil_div(packs_per_row, x)), static_cast<unsigned>(row_blocks)), block};
}

// Calls f(row, column) for this thread's packs of N columns.
template <int N, class F>
__device__ void for_each_pack(int64_t rows, int64_t width, F f) {
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (column >= width) return;
  const int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.y;
  for (int64_t row = static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y; row < rows;
       row += step) {
    f(row, column);
  }
}

}  // namespace qianli::ops::cuda
