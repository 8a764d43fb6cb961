// RMSNorm with a SiLU gate in front of it or behind it, forward and backward.
#include "qianli/ops/cuda/column_sums.cuh"
#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/reduce.cuh"
#include "qianli/ops/cuda/scratch.h"
#include "qianli/ops/cuda/table.h"

namespace qianli::ops::cuda {
namespace {

template <class T>
__device__ const T* gate_row(const GatedNormForward& call, int64_t row) {
  return static_cast<const T*>(call.gate) + row / call.gate_rows * call.gate_stride +
         row % call.gate_rows * call.width;
}
__device__ inline float sigmoid(float z) { return 1.0f / (1.0f + expf(-z)); }

// A warp or a block per row.
template <class T, int N>
__global__ void gated_forward_kernel(GatedNormForward call) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= call.rows) return;
  const int64_t first = threadIdx.x * N, step = blockDim.x * N;
  const T* x = static_cast<const T*>(call.x) + row * call.width;
  const T* gate = gate_row<T>(call, row);
  float total = 0;
  for (int64_t i = first; i < call.width; i += step) {
    float v[N], z[N];
    load(x + i, v);
    load(gate + i, z);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      if (call.gate_first) v[j] *= z[j] * sigmoid(z[j]);
      total += v[j] * v[j];
    }
  }
  total = row_sum(total);
  const float rstd =
      1.0f / sqrtf(total / static_cast<float>(call.width) + static_cast<float>(call.eps));
  if (threadIdx.x == 0) call.rstd[row] = rstd;
  const T* weight = static_cast<const T*>(call.weight) + row % call.weight_rows * call.width;
  T* y = static_cast<T*>(call.y) + row * call.width;
  for (int64_t i = first; i < call.width; i += step) {
    float v[N], z[N], w[N];
    load(x + i, v);
    load(gate + i, z);
    load(weight + i, w);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] *= z[j] * sigmoid(z[j]) * rstd * w[j];
    store(y + i, v);
  }
}

// With s the input of the norm (x or x silu(z)), n = s * rstd and u its incoming gradient:
// ds = rstd (u - n mean(u n)); in both forms the terms of that mean are g w x silu(z) rstd.
template <class T, int N>
__global__ void gated_grad_input_kernel(GatedNormBackward backward) {
  const GatedNormForward& call = backward.forward;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= call.rows) return;
  const int64_t start = row * call.width, first = threadIdx.x * N, step = blockDim.x * N;
  const T* x = static_cast<const T*>(call.x) + start;
  const T* gate = gate_row<T>(call, row);
  const T* grad = static_cast<const T*>(backward.grad_y) + start;
  const T* weight = static_cast<const T*>(call.weight) + row % call.weight_rows * call.width;
  const float rstd = call.rstd[row];
  float total = 0;
  for (int64_t i = first; i < call.width; i += step) {
    float v[N], z[N], g[N], w[N];
    load(x + i, v);
    load(gate + i, z);
    load(grad + i, g);
    load(weight + i, w);
#pragma unroll
    for (int j = 0; j < N; ++j) total += g[j] * w[j] * v[j] * z[j] * sigmoid(z[j]) * rstd;
  }
  const float mean = row_sum(total) / static_cast<float>(call.width);
  T* grad_x = static_cast<T*>(backward.grad_x) + start;
  T* grad_gate = static_cast<T*>(backward.grad_gate) + start;
  for (int64_t i = first; i < call.width; i += step) {
    float v[N], z[N], g[N], w[N];
    load(x + i, v);
    load(gate + i, z);
    load(grad + i, g);
    load(weight + i, w);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float s = sigmoid(z[j]), open = z[j] * s, slope = s * (1.0f + z[j] * (1.0f - s));
      const float u = g[j] * w[j];
      if (call.gate_first) {
        const float ds = rstd * (u - v[j] * open * rstd * mean);
        z[j] = ds * v[j] * slope;
        v[j] = ds * open;
      } else {
        const float n = v[j] * rstd;
        z[j] = u * n * slope;
        v[j] = rstd * (u * open - n * mean);
      }
    }
    store(grad_x + i, v);
    store(grad_gate + i, z);
  }
}

// dw = sum over rows of g x silu(z) rstd; laid out as norm_grad_weight_kernel.
template <class T, int N>
__global__ void gated_grad_weight_kernel(GatedNormBackward backward, int64_t rows_per_chunk,
                                         float* partial) {
  const GatedNormForward& call = backward.forward;
  const int64_t rows = call.rows / call.weight_rows, columns = call.weight_rows * call.width;
  const int64_t tile = static_cast<int64_t>(blockIdx.x) * kWarp * N;
  const int64_t column = tile + threadIdx.x * N;
  const int64_t begin = blockIdx.y * rows_per_chunk;
  const int64_t end = begin + rows_per_chunk < rows ? begin + rows_per_chunk : rows;
  float sum[N] = {};
  if (column < columns) {
    for (int64_t row = begin + threadIdx.y; row < end; row += kLanes) {
      const int64_t norm_row = row * call.weight_rows + column / call.width;
      float v[N], z[N], g[N];
      load(static_cast<const T*>(call.x) + row * columns + column, v);
      load(gate_row<T>(call, norm_row) + column % call.width, z);
      load(static_cast<const T*>(backward.grad_y) + row * columns + column, g);
      const float rstd = call.rstd[norm_row];
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] += g[j] * v[j] * z[j] * sigmoid(z[j]) * rstd;
    }
  }
  store_column_sums(sum, partial + blockIdx.y * columns + tile, columns - tile);
}

template <class T, int N>
void gated_grad_weight(const GatedNormBackward& call, Stream stream) {
  const int64_t columns = call.forward.weight_rows * call.forward.width;
  const Chunks chunks(call.forward.rows / call.forward.weight_rows, columns, N);
  const Scratch partial(sizeof(float) * chunks.count * columns, stream);
  launch("gated_norm_backward", gated_grad_weight_kernel<T, N>, chunks.grid(), Chunks::block(),
         stream, call, chunks.rows_per_chunk, partial.as<float>());
  add_chunks("gated_norm_backward", partial.as<float>(), chunks.count, columns, call.grad_weight,
             stream);
}

}  // namespace

void gated_norm_forward(const GatedNormForward& call, Stream stream) {
  if (call.rows == 0 || call.width == 0) return;
  const auto packed = [&](int size) {
    return call.width % size == 0 && call.gate_stride % size == 0 &&
           aligned(call.x, call.gate, call.weight, call.y);
  };
  with_layout(call.dtype, packed, [&](auto element, auto size) {
    const RowBlocks blocks = row_blocks(call.rows, ceil_div(call.width, size), 512);
    launch("gated_norm_forward", gated_forward_kernel<decltype(element), decltype(size)::value>,
           blocks.grid, blocks.block, stream, call);
  });
}

void gated_norm_backward(const GatedNormBackward& call, Stream stream) {
  const GatedNormForward& forward = call.forward;
  if (forward.rows == 0 || forward.width == 0) return;
  const auto packed = [&](int size) {
    return forward.width % size == 0 && forward.gate_stride % size == 0 &&
           aligned(forward.x, forward.gate, forward.weight, call.grad_y, call.grad_x,
                   call.grad_gate);
  };
  with_layout(forward.dtype, packed, [&](auto element, auto size) {
    using T = decltype(element);
    constexpr int kSize = decltype(size)::value;
    // First, because grad_x may take the place of grad_y.
    if (call.grad_weight) gated_grad_weight<T, kSize>(call, stream);
    const RowBlocks blocks = row_blocks(forward.rows, ceil_div(forward.width, kSize), 512);
    launch("gated_norm_backward", gated_grad_input_kernel<T, kSize>, blocks.grid, blocks.block,
           stream, call);
  });
}

}  // namespace qianli::ops::cuda
