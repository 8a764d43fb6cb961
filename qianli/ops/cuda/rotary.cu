// Rotary embedding: one block per token, one thread per pack of channel pairs.
#include <algorithm>

#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/reduce.cuh"
#include "qianli/ops/cuda/table.h"

namespace qianli::ops::cuda {
namespace {

__device__ inline void turn(float& a, float& b, float cosine, float sine) {
  const float turned = a * cosine - b * sine;
  b = b * cosine + a * sine;
  a = turned;
}

// N angles. Half style: N neighbours of the first half and N of the second; interleaved: 2N
// neighbours.
template <class T, int N, bool kInterleaved>
__device__ void turn_pack(const T* x, T* y, const float* cosines, const float* sines, float sign,
                          int i, int half) {
  float cosine[N], sine[N];
  load(cosines + i, cosine);
  load(sines + i, sine);
  float a[N], b[N];
  const int first = kInterleaved ? 2 * i : i, second = kInterleaved ? 2 * i + N : half + i;
  load(x + first, a);
  load(x + second, b);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    if constexpr (!kInterleaved || N == 1) {
      turn(a[j], b[j], cosine[j], sign * sine[j]);
    } else {
      float* pair = j < N / 2 ? a + 2 * j : b + 2 * j - N;
      turn(pair[0], pair[1], cosine[j], sign * sine[j]);
    }
  }
  store(y + first, a);
  store(y + second, b);
}

template <class T, int N, bool kInterleaved>
__global__ void rotary_kernel(Rotary call) {
  const int64_t token = blockIdx.x;
  const int heads = static_cast<int>(call.heads), head_dim = static_cast<int>(call.head_dim);
  const int rotary_dim = static_cast<int>(call.rotary_dim), half = rotary_dim / 2;
  const int offset = static_cast<int>(call.offset);
  const T* x = static_cast<const T*>(call.x) + token * call.x_stride;
  T* y = static_cast<T*>(call.y) + token * call.y_stride;
  const int64_t angles = call.positions[token] * half;
  const float sign = call.inverse ? -1.0f : 1.0f;

  const int packs = half / N;
  for (int u = threadIdx.x; u < heads * packs; u += blockDim.x) {
    const int head = u / packs, i = (u - head * packs) * N;
    turn_pack<T, N, kInterleaved>(x + head * call.x_head_stride + offset,
                                  y + head * head_dim + offset, call.cos + angles,
                                  call.sin + angles, sign, i, half);
  }

  const int rest = head_dim - rotary_dim;
  if (rest == 0 || x == y) return;
  for (int u = threadIdx.x; u < heads * rest; u += blockDim.x) {
    const int head = u / rest, at = u - head * rest, i = at < offset ? at : at + rotary_dim;
    y[head * head_dim + i] = x[head * call.x_head_stride + i];
  }
}

}  // namespace

void rotary(const Rotary& call, Stream stream) {
  if (call.tokens == 0 || call.heads == 0) return;
  const int64_t half = call.rotary_dim / 2;
  const auto packed = [&](int size) {
    return half % size == 0 && call.head_dim % size == 0 && call.offset % size == 0 &&
           call.x_stride % size == 0 && call.x_head_stride % size == 0 &&
           call.y_stride % size == 0 && aligned(call.x, call.y, call.cos, call.sin);
  };
  with_layout(call.dtype, packed, [&](auto element, auto size) {
    using T = decltype(element);
    constexpr int kSize = decltype(size)::value;
    const int64_t work = std::max(call.heads * (half / size), int64_t{1});
    const int64_t threads = std::min<int64_t>(ceil_div(work, kWarp) * kWarp, 256);
    launch("rotary",
           call.interleaved ? rotary_kernel<T, kSize, true> : rotary_kernel<T, kSize, false>,
           dim3(grid_size(call.tokens)), dim3(static_cast<unsigned>(threads)), stream, call);
  });
}

}  // namespace qianli::ops::cuda
