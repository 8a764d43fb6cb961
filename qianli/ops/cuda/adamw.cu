// AdamW on flat float32 ranges, with the bfloat16 copy of the new parameter written on the way.
#include <algorithm>
#include <cmath>

#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/table.h"

namespace qianli::ops::cuda {
namespace {

// The constants of one step, formed in double on the host and rounded once.
struct Step {
  float grad_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, eps;
  float decay;         // 1 - lr * weight_decay
  float size;          // lr / bias_correction1
  float inverse_root;  // 1 / sqrt(bias_correction2)
};

template <int N>
__global__ void adamw_kernel(AdamW call, Step step) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x * N;
  auto* copy = static_cast<BFloat16*>(call.bf16_copy);
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
       i < call.count; i += stride) {
    float p[N], g[N], m[N], v[N];
    load(call.parameter + i, p);
    load(call.grad + i, g);
    load(call.exp_avg + i, m);
    load(call.exp_avg_sq + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float grad = g[j] * step.grad_scale;
      m[j] = step.beta1 * m[j] + step.one_minus_beta1 * grad;
      v[j] = step.beta2 * v[j] + step.one_minus_beta2 * grad * grad;
      p[j] = p[j] * step.decay - step.size * m[j] / (sqrtf(v[j]) * step.inverse_root + step.eps);
    }
    store(call.parameter + i, p);
    store(call.exp_avg + i, m);
    store(call.exp_avg_sq + i, v);
    if (copy) store(copy + i, p);
  }
}

}  // namespace

void adamw(const AdamW& call, Stream stream) {
  if (call.count == 0) return;
  const auto f = [](double x) { return static_cast<float>(x); };
  const Step step{f(call.grad_scale),
                  f(call.beta1),
                  f(1.0 - call.beta1),
                  f(call.beta2),
                  f(1.0 - call.beta2),
                  f(call.eps),
                  f(1.0 - call.lr * call.weight_decay),
                  f(call.lr / call.bias_correction1),
                  f(1.0 / std::sqrt(call.bias_correction2))};
  const auto packed = [&](int size) {
    return call.count % size == 0 &&
           aligned(call.parameter, call.grad, call.exp_avg, call.exp_avg_sq, call.bf16_copy);
  };
  with_layout(Dtype::kFloat32, packed, [&](auto, auto size) {
    constexpr int kSize = decltype(size)::value, kThreads = 256;
    const int64_t blocks = std::min<int64_t>(ceil_div(call.count, kThreads * kSize), 4096);
    launch("adamw", adamw_kernel<kSize>, dim3(grid_size(blocks)), dim3(kThreads), stream, call,
           step);
  });
}

}  // namespace qianli::ops::cuda
