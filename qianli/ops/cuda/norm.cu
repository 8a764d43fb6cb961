// rms_norm and layer_norm, forward: a warp or a block per row, the row read again from cache.
#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/reduce.cuh"
#include "qianli/ops/cuda/table.h"

namespace qianli::ops::cuda {
namespace {

// Stores x + residual and returns it as it was stored, so that backward sees the same input.
template <class T, int N>
__device__ void add_residual(float (&x)[N], const T* residual, T* sum) {
  float other[N];
  load(residual, other);
#pragma unroll
  for (int j = 0; j < N; ++j) x[j] = rounded<T>(x[j] + other[j]);
  store(sum, x);
}

template <class T, int N, bool kLayerNorm>
__global__ void norm_forward_kernel(NormForward call) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= call.rows) return;
  const int64_t start = row * call.width;
  const int64_t first = threadIdx.x * N, step = blockDim.x * N;
  const T* input = static_cast<const T*>(call.x) + start;
  const T* residual = static_cast<const T*>(call.residual);
  T* sum = static_cast<T*>(call.sum);

  float total = 0;  // of x for layer_norm, of x^2 for rms_norm
  for (int64_t i = first; i < call.width; i += step) {
    float x[N];
    load(input + i, x);
    if (residual) add_residual(x, residual + start + i, sum + start + i);
#pragma unroll
    for (int j = 0; j < N; ++j) total += kLayerNorm ? x[j] : x[j] * x[j];
  }
  total = row_sum(total);
  if (residual) input = sum + start;  // each thread reads back what it wrote itself

  const float width = static_cast<float>(call.width);
  const float mean = kLayerNorm ? total / width : 0.0f;
  if (kLayerNorm) {
    total = 0;
    for (int64_t i = first; i < call.width; i += step) {
      float x[N];
      load(input + i, x);
#pragma unroll
      for (int j = 0; j < N; ++j) total += (x[j] - mean) * (x[j] - mean);
    }
    total = row_sum(total);
  }
  const float rstd = 1.0f / sqrtf(total / width + static_cast<float>(call.eps));
  if (threadIdx.x == 0) {
    call.rstd[row] = rstd;
    if (kLayerNorm) call.mean[row] = mean;
  }

  const int64_t weight_at = row % call.weight_rows * call.width;
  const T* weight = static_cast<const T*>(call.weight) + weight_at;
  const T* bias = call.bias ? static_cast<const T*>(call.bias) + weight_at : nullptr;
  const float base = call.zero_centered ? 1.0f : 0.0f;
  T* y = static_cast<T*>(call.y) + start;
  for (int64_t i = first; i < call.width; i += step) {
    float x[N], w[N], b[N] = {};
    load(input + i, x);
    load(weight + i, w);
    if (kLayerNorm && bias) load(bias + i, b);
#pragma unroll
    for (int j = 0; j < N; ++j) x[j] = (x[j] - mean) * rstd * (base + w[j]) + b[j];
    store(y + i, x);
  }
}

template <bool kLayerNorm>
void norm_forward(const char* name, const NormForward& call, Stream stream) {
  if (call.rows == 0 || call.width == 0) return;
  const auto packed = [&](int size) {
    return call.width % size == 0 &&
           aligned(call.x, call.residual, call.weight, call.bias, call.y, call.sum);
  };
  with_layout(call.dtype, packed, [&](auto element, auto size) {
    const RowBlocks blocks = row_blocks(call.rows, ceil_div(call.width, size), 512);
    launch(name, norm_forward_kernel<decltype(element), decltype(size)::value, kLayerNorm>,
           blocks.grid, blocks.block, stream, call);
  });
}

}  // namespace

void rms_norm_forward(const NormForward& call, Stream stream) {
  norm_forward<false>("rms_norm_forward", call, stream);
}

void layer_norm_forward(const NormForward& call, Stream stream) {
  norm_forward<true>("layer_norm_forward", call, stream);
}

}  // namespace qianli::ops::cuda
