// Dropout of rows.
#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/philox.cuh"
#include "qianli/ops/cuda/table.h"
#include "qianli/ops/cuda/tile.cuh"

namespace qianli::ops::cuda {
namespace {

template <class T, int N>
__global__ void dropout_kernel(DropoutRows call) {
  static_assert(kDropoutGroup % N == 0);  // a pack lies in one group
  for_each_pack<N>(call.rows, call.width, [&](int64_t row, int64_t column) {
    const DropoutBlock block = dropout_block(call.dropout, static_cast<uint64_t>(call.origins[row]),
                                             static_cast<uint32_t>(column / kDropoutGroup), 0);
    float values[N];
    load(static_cast<const T*>(call.x) + row * call.width + column, values);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const auto neighbour = static_cast<uint32_t>(column % kDropoutGroup) + i;
      values[i] *= dropout_factor(call.dropout, block, neighbour);
    }
    store(static_cast<T*>(call.y) + row * call.width + column, values);
  });
}

}  // namespace

void dropout(const DropoutRows& call, Stream stream) {
  if (call.rows == 0 || call.width == 0) return;
  const auto packed = [&](int size) { return call.width % size == 0 && aligned(call.x, call.y); };
  with_layout(call.dtype, packed, [&](auto element, auto size) {
    const Tiles t = tiles(call.rows, call.width / size);
    launch("dropout", dropout_kernel<decltype(element), decltype(size)::value>, t.grid, t.block,
           stream, call);
  });
}

}  // namespace qianli::ops::cuda
