// Rotary embedding: one block per token, one thread per pack of channel pairs.
#include <algorithm>

#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/reduce.cuh"
#include "qianli/ops/cuda/table.h"

namespace qianli::ops::cuda {
namespace {

template <class T, int N>
__global__ void rotary_kernel(Rotary call) {
  const int64_t token = blockIdx.x;
  const int heads = static_cast<int>(call.heads), head_dim = static_cast<int>(call.head_dim);
  const int rotary_dim = static_cast<int>(call.rotary_dim), half = rotary_dim / 2;
  const T* x = static_cast<const T*>(call.x) + token * call.x_stride;
  T* y = static_cast<T*>(call.y) + token * call.y_stride;
  const int64_t angles = call.positions[token] * half;

  const int packs = half / N;
  for (int u = threadIdx.x; u < heads * packs; u += blockDim.x) {
    const int head = u / packs, i = (u - head * packs) * N;
    const int first = head * head_dim + i, second = first + half;
    float a[N], b[N], cosine[N], sine[N];
    load(x + first, a);
    load(x + second, b);
    load(call.cos + angles + i, cosine);
    load(call.sin + angles + i, sine);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float s = call.inverse ? -sine[j] : sine[j];
      const float rotated = a[j] * cosine[j] - b[j] * s;
      b[j] = b[j] * cosine[j] + a[j] * s;
      a[j] = rotated;
    }
    store(y + first, a);
    store(y + second, b);
  }

  const int rest = head_dim - rotary_dim;
  if (rest == 0 || x == y) return;
  for (int u = threadIdx.x; u < heads * rest; u += blockDim.x) {
    const int head = u / rest, i = head * head_dim + rotary_dim + (u - head * rest);
    y[i] = x[i];
  }
}

}  // namespace

void rotary(const Rotary& call, Stream stream) {
  if (call.tokens == 0 || call.heads == 0) return;
  const int64_t half = call.rotary_dim / 2;
  const auto packed = [&](int size) {
    return half % size == 0 && call.head_dim % size == 0 && call.x_stride % size == 0 &&
           call.y_stride % size == 0 && aligned(call.x, call.y, call.cos, call.sin);
  };
  with_layout(call.dtype, packed, [&](auto element, auto size) {
    const int64_t work = std::max(call.heads * (half / size), int64_t{1});
    const int64_t threads = std::min<int64_t>(ceil_div(work, kWarp) * kWarp, 256);
    launch("rotary", rotary_kernel<decltype(element), decltype(size)::value>,
           dim3(grid_size(call.tokens)), dim3(static_cast<unsigned>(threads)), stream, call);
  });
}

}  // namespace qianli::ops::cuda
