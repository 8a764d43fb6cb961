// Embedding: rows copied out, gradients added in. Backward sorts the tokens by id (stable, so
// tokens of one id keep their order) and gives each run of equal ids to the threads of one block.
#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/scratch.h"
#include "qianli/ops/cuda/sort.h"
#include "qianli/ops/cuda/table.h"
#include "qianli/ops/cuda/tile.cuh"

namespace qianli::ops::cuda {
namespace {

template <class T, int N>
__global__ void embedding_forward_kernel(EmbeddingForward call) {
  for_each_pack<N>(call.tokens, call.width, [&](int64_t token, int64_t column) {
    const T* from = static_cast<const T*>(call.table) + call.ids[token] * call.width + column;
    T* to = static_cast<T*>(call.y) + token * call.width + column;
    *reinterpret_cast<Pack<T, N>*>(to) = *reinterpret_cast<const Pack<T, N>*>(from);
  });
}

__global__ void number_tokens_kernel(EmbeddingBackward call, uint32_t* keys, uint32_t* tokens) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= call.tokens) return;
  keys[i] = static_cast<uint32_t>(call.ids[i]);
  tokens[i] = static_cast<uint32_t>(i);
}

// The end of the run of keys equal to keys[begin]. Found before the run is read, so that the loads
// of the sum need not wait for one comparison each.
__device__ int64_t run_end(const uint32_t* keys, int64_t begin, int64_t count) {
  const uint32_t id = keys[begin];
  int64_t low = begin + 1, high = count;  // keys before `low` equal id, those from `high` on do not
  while (low < high && keys[low] == id) {
    const int64_t middle = low + (high - low) / 2;
    if (keys[middle] == id) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Block (x: sorted place, y: tile of columns). Only the first place of a run of equal ids works.
template <class T, int N>
__global__ void embedding_backward_kernel(EmbeddingBackward call, const uint32_t* keys,
                                          const uint32_t* tokens) {
  const int64_t begin = blockIdx.x;
  const uint32_t id = keys[begin];
  if (begin > 0 && keys[begin - 1] == id) return;
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * N;
  if (column >= call.width) return;
  const T* grad_y = static_cast<const T*>(call.grad_y) + column;
  float* to = call.grad_table + id * call.width + column;
  float total[N];
  load(to, total);
  const int64_t end = run_end(keys, begin, call.tokens);
#pragma unroll 4
  for (int64_t i = begin; i < end; ++i) {
    float grad[N];
    load(grad_y + tokens[i] * call.width, grad);
#pragma unroll
    for (int j = 0; j < N; ++j) total[j] += grad[j];
  }
  store(to, total);
}

}  // namespace

void embedding_forward(const EmbeddingForward& call, Stream stream) {
  if (call.tokens == 0 || call.width == 0) return;
  const auto packed = [&](int size) {
    return call.width % size == 0 && aligned(call.table, call.y);
  };
  with_layout(call.dtype, packed, [&](auto element, auto size) {
    const Tiles t = tiles(call.tokens, call.width / size);
    launch("embedding_forward", embedding_forward_kernel<decltype(element), decltype(size)::value>,
           t.grid, t.block, stream, call);
  });
}

void embedding_backward(const EmbeddingBackward& call, Stream stream) {
  if (call.tokens == 0 || call.width == 0) return;
  constexpr unsigned kThreads = 128;
  const unsigned places = grid_size(call.tokens);
  const Scratch scratch(4 * sizeof(uint32_t) * call.tokens, stream);
  uint32_t* keys = scratch.as<uint32_t>();
  uint32_t* tokens = keys + call.tokens;
  uint32_t* sorted_keys = tokens + call.tokens;
  uint32_t* sorted_tokens = sorted_keys + call.tokens;
  launch("embedding_backward", number_tokens_kernel,
         dim3(grid_size(ceil_div(call.tokens, kThreads))), dim3(kThreads), stream, call, keys,
         tokens);
  sort_pairs(keys, tokens, sorted_keys, sorted_tokens, call.tokens, call.vocabulary, stream);

  const auto packed = [&](int size) {
    return call.width % size == 0 && aligned(call.grad_y, call.grad_table);
  };
  with_layout(call.dtype, packed, [&](auto element, auto size) {
    const int64_t column_tiles = ceil_div(call.width, kThreads * size);
    launch("embedding_backward",
           embedding_backward_kernel<decltype(element), decltype(size)::value>,
           dim3(places, grid_size(column_tiles, 65535)), dim3(kThreads), stream, call, sorted_keys,
           sorted_tokens);
  });
}

}  // namespace qianli::ops::cuda
