// Sum of squares in double: a fixed number of partial sums, then those in order.
#include <algorithm>

#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/reduce.cuh"
#include "qianli/ops/cuda/scratch.h"
#include "qianli/ops/cuda/table.h"

namespace qianli::ops::cuda {
namespace {

constexpr int kThreads = 256;

template <int N>
__global__ void square_partials_kernel(SquaredNorm call, double* partials) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x * N;
  double total = 0;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
       i < call.count; i += stride) {
    float x[N];
    load(call.x + i, x);
#pragma unroll
    for (int j = 0; j < N; ++j) total += static_cast<double>(x[j]) * static_cast<double>(x[j]);
  }
  total = row_sum(total);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// One block.
__global__ void add_partials_kernel(const double* partials, int count, double* result) {
  double total = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) total += partials[i];
  total = row_sum(total);
  if (threadIdx.x == 0) *result = total;
}

}  // namespace

void squared_norm(const SquaredNorm& call, Stream stream) {
  const auto packed = [&](int size) { return call.count % size == 0 && aligned(call.x); };
  with_layout(Dtype::kFloat32, packed, [&](auto, auto size) {
    constexpr int kSize = decltype(size)::value;
    // At least one block, so that an empty range still writes its zero.
    const int64_t blocks = std::clamp<int64_t>(ceil_div(call.count, kThreads * kSize * 4), 1, 1024);
    const Scratch partials(sizeof(double) * blocks, stream);
    launch("squared_norm", square_partials_kernel<kSize>, dim3(grid_size(blocks)), dim3(kThreads),
           stream, call, partials.as<double>());
    launch("squared_norm", add_partials_kernel, dim3(1), dim3(kThreads), stream,
           partials.as<double>(), blocks, call.result);
  });
}

}  // namespace qianli::ops::cuda
