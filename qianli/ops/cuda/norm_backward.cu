// rms_norm and layer_norm, backward. The gradient of the input goes by rows; those of weight and
// bias go by columns in two stages: partial sums of chunks of rows, then the chunks in order.
#include "qianli/ops/cuda/column_sums.cuh"
#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/reduce.cuh"
#include "qianli/ops/cuda/scratch.h"
#include "qianli/ops/cuda/table.h"

namespace qianli::ops::cuda {
namespace {

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
  const T* weight = static_cast<const T*>(call.weight) + row % call.weight_rows * call.width;
  const float base = call.zero_centered ? 1.0f : 0.0f;
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
      const float u = g[j] * (base + w[j]);
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
      x[j] = rstd * (g[j] * (base + w[j]) - n * mean_un - mean_u) + other[j];
    }
    store(grad_x + i, x);
  }
}

struct Partials {
  int64_t rows_per_chunk;
  float* weight;  // [chunks, columns]
  float* bias;    // [chunks, columns], layer_norm only
};

// The weight_rows rows that share no weight lie side by side: a matrix of rows / weight_rows rows
// and weight_rows * width columns. Block (tile of columns, chunk of rows).
template <class T, int N, bool kLayerNorm>
__global__ void norm_grad_weight_kernel(NormBackward call, Partials partials) {
  const int64_t rows = call.rows / call.weight_rows, columns = call.weight_rows * call.width;
  const int64_t tile = static_cast<int64_t>(blockIdx.x) * kWarp * N;
  const int64_t column = tile + threadIdx.x * N;
  const int64_t begin = blockIdx.y * partials.rows_per_chunk;
  const int64_t end =
      begin + partials.rows_per_chunk < rows ? begin + partials.rows_per_chunk : rows;
  float grad_weight[N] = {}, grad_bias[N] = {};
  if (column < columns) {
    const T* grad_y = static_cast<const T*>(call.grad_y) + column;
    const T* input = static_cast<const T*>(call.sum) + column;
    for (int64_t row = begin + threadIdx.y; row < end; row += kLanes) {
      float g[N], x[N];
      load(grad_y + row * columns, g);
      load(input + row * columns, x);
      const int64_t statistic = row * call.weight_rows + column / call.width;
      const float mean = kLayerNorm ? call.mean[statistic] : 0.0f;
      const float rstd = call.rstd[statistic];
#pragma unroll
      for (int j = 0; j < N; ++j) {
        grad_weight[j] += g[j] * ((x[j] - mean) * rstd);
        if (kLayerNorm) grad_bias[j] += g[j];
      }
    }
  }
  const int64_t place = blockIdx.y * columns + tile;
  store_column_sums(grad_weight, partials.weight + place, columns - tile);
  if (kLayerNorm) store_column_sums(grad_bias, partials.bias + place, columns - tile);
}

template <class T, int N, bool kLayerNorm>
void norm_grad_weight(const char* name, const NormBackward& call, Stream stream) {
  const int64_t columns = call.weight_rows * call.width;
  const Chunks chunks(call.rows / call.weight_rows, columns, N);
  const int64_t size = chunks.count * columns;
  const Scratch scratch(sizeof(float) * size * (kLayerNorm ? 2 : 1), stream);
  const Partials partials{chunks.rows_per_chunk, scratch.as<float>(),
                          kLayerNorm ? scratch.as<float>() + size : nullptr};
  launch(name, norm_grad_weight_kernel<T, N, kLayerNorm>, chunks.grid(), Chunks::block(), stream,
         call, partials);
  if (call.grad_weight) {
    add_chunks(name, partials.weight, chunks.count, columns, call.grad_weight, stream);
  }
  if (kLayerNorm && call.grad_bias) {
    add_chunks(name, partials.bias, chunks.count, columns, call.grad_bias, stream);
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
