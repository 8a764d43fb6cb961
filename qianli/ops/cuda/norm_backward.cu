// rms_norm and layer_norm, backward. The gradient of the input goes by rows; those of weight and
// bias go by columns in two stages: partial sums of chunks of rows, then the chunks in order.
#include <algorithm>

#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/reduce.cuh"
#include "qianli/ops/cuda/scratch.h"
#include "qianli/ops/cuda/table.h"

namespace qianli::ops::cuda {
namespace {

constexpr int kLanes = 8;  // rows summed side by side in a block of 32 x kLanes threads

// u = grad_y * weight, n = (x - mean) * rstd:
// grad_x = rstd * (u - n * mean(u n) [- mean(u) for layer_norm]) [+ grad_sum]
template <class T, int N, bool kLayerNorm>
__global__ void norm_grad_input_kernel(NormBackward call) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= call.rows) return;
  const int64_t start = row * call.width;
  const int64_t first = threadIdx.x * N, step = blockDim.x * N;
  const T* grad_y = static_cast<const T*>(call.grad_y) + start;
  const T* input = static_cast<const T*>(call.sum) + start;
  const T* weight = static_cast<const T*>(call.weight);
  const float mean = kLayerNorm ? call.mean[row] : 0.0f;
  const float rstd = call.rstd[row];

  float sum_un = 0, sum_u = 0;
  for (int64_t i = first; i < call.width; i += step) {
    float g[N], x[N], w[N];
    load(grad_y + i, g);
    load(input + i, x);
    load(weight + i, w);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float u = g[j] * w[j];
      sum_un += u * ((x[j] - mean) * rstd);
      if (kLayerNorm) sum_u += u;
    }
  }
  const float width = static_cast<float>(call.width);
  const float mean_un = row_sum(sum_un) / width;
  const float mean_u = kLayerNorm ? row_sum(sum_u) / width : 0.0f;

  const T* grad_sum = static_cast<const T*>(call.grad_sum);
  T* grad_x = static_cast<T*>(call.grad_x) + start;
  for (int64_t i = first; i < call.width; i += step) {
    float g[N], x[N], w[N], other[N] = {};
    load(grad_y + i, g);
    load(input + i, x);
    load(weight + i, w);
    if (grad_sum) load(grad_sum + start + i, other);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float n = (x[j] - mean) * rstd;
      x[j] = rstd * (g[j] * w[j] - n * mean_un - mean_u) + other[j];
    }
    store(grad_x + i, x);
  }
}

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

struct Partials {
  int64_t rows_per_chunk;
  float* weight;  // [chunks, width]
  float* bias;    // [chunks, width], layer_norm only
};

// Block (tile of columns, chunk of rows).
template <class T, int N, bool kLayerNorm>
__global__ void norm_grad_weight_kernel(NormBackward call, Partials partials) {
  const int64_t tile = static_cast<int64_t>(blockIdx.x) * kWarp * N;
  const int64_t column = tile + threadIdx.x * N;
  const int64_t begin = blockIdx.y * partials.rows_per_chunk;
  const int64_t end =
      begin + partials.rows_per_chunk < call.rows ? begin + partials.rows_per_chunk : call.rows;
  float grad_weight[N] = {}, grad_bias[N] = {};
  if (column < call.width) {
    const T* grad_y = static_cast<const T*>(call.grad_y) + column;
    const T* input = static_cast<const T*>(call.sum) + column;
    for (int64_t row = begin + threadIdx.y; row < end; row += kLanes) {
      float g[N], x[N];
      load(grad_y + row * call.width, g);
      load(input + row * call.width, x);
      const float mean = kLayerNorm ? call.mean[row] : 0.0f;
      const float rstd = call.rstd[row];
#pragma unroll
      for (int j = 0; j < N; ++j) {
        grad_weight[j] += g[j] * ((x[j] - mean) * rstd);
        if (kLayerNorm) grad_bias[j] += g[j];
      }
    }
  }
  const int64_t place = blockIdx.y * call.width + tile;
  store_column_sums(grad_weight, partials.weight + place, call.width - tile);
  if (kLayerNorm) store_column_sums(grad_bias, partials.bias + place, call.width - tile);
}

// to[column] += sum over chunks. Block of 32 columns.
__global__ void add_chunks_kernel(const float* partial, int64_t chunks, int64_t width, float* to) {
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

template <class T, int N, bool kLayerNorm>
void norm_grad_weight(const char* name, const NormBackward& call, Stream stream) {
  // About a thousand blocks, each with at least 64 rows: enough for any device, and the same sums
  // on all.
  const int64_t tiles = ceil_div(call.width, kWarp * N);
  const int64_t wanted = std::clamp<int64_t>(1024 / tiles, 1, ceil_div(call.rows, 64));
  const int64_t rows_per_chunk = ceil_div(call.rows, wanted);
  const int64_t chunks = ceil_div(call.rows, rows_per_chunk);
  const int64_t size = chunks * call.width;
  const Scratch scratch(sizeof(float) * size * (kLayerNorm ? 2 : 1), stream);
  const Partials partials{rows_per_chunk, scratch.as<float>(),
                          kLayerNorm ? scratch.as<float>() + size : nullptr};

  const dim3 block(kWarp, kLanes);
  launch(name, norm_grad_weight_kernel<T, N, kLayerNorm>,
         dim3(grid_size(tiles), grid_size(chunks, 65535)), block, stream, call, partials);
  const dim3 columns(grid_size(ceil_div(call.width, kWarp)));
  if (call.grad_weight) {
    launch(name, add_chunks_kernel, columns, block, stream, partials.weight, chunks, call.width,
           call.grad_weight);
  }
  if (kLayerNorm && call.grad_bias) {
    launch(name, add_chunks_kernel, columns, block, stream, partials.bias, chunks, call.width,
           call.grad_bias);
  }
}

template <bool kLayerNorm>
void norm_backward(const char* name, const NormBackward& call, Stream stream) {
  if (call.rows == 0 || call.width == 0) return;
  const auto packed = [&](int size) {
    return call.width % size == 0 &&
           aligned(call.grad_y, call.grad_sum, call.sum, call.weight, call.grad_x);
  };
  with_layout(call.dtype, packed, [&](auto element, auto size) {
    using T = decltype(element);
    constexpr int kSize = decltype(size)::value;
    // First, because grad_x may take the place of grad_y.
    if (call.grad_weight || (kLayerNorm && call.grad_bias)) {
      norm_grad_weight<T, kSize, kLayerNorm>(name, call, stream);
    }
    const RowBlocks blocks = row_blocks(call.rows, ceil_div(call.width, kSize), 512);
    launch(name, norm_grad_input_kernel<T, kSize, kLayerNorm>, blocks.grid, blocks.block, stream,
           call);
  });
}

}  // namespace

void rms_norm_backward(const NormBackward& call, Stream stream) {
  norm_backward<false>("rms_norm_backward", call, stream);
}

void layer_norm_backward(const NormBackward& call, Stream stream) {
  norm_backward<true>("layer_norm_backward", call, stream);
}

}  // namespace qianli::ops::cuda
