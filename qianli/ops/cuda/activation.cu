// Activations, plain and gated, forward and backward.
#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/table.h"
#include "qianli/ops/cuda/tile.cuh"

namespace qianli::ops::cuda {
namespace {

constexpr float kSqrtHalf = 0.70710678118654752f;    // 1 / sqrt(2)
constexpr float kInvSqrt2Pi = 0.39894228040143268f;  // 1 / sqrt(2 pi)
constexpr float kTanhScale = 0.79788456080286536f;   // sqrt(2 / pi)
constexpr float kTanhCubic = 0.044715f;

struct ValueAndSlope {
  float value, slope;
};

// act(x) and act'(x); what the caller does not use is not computed.
__device__ inline ValueAndSlope activate(ActivationKind kind, float x) {
  switch (kind) {
    case ActivationKind::kSilu: {
      const float sigmoid = 1.0f / (1.0f + expf(-x));
      return {x * sigmoid, sigmoid * (1.0f + x * (1.0f - sigmoid))};
    }
    case ActivationKind::kGelu: {
      const float cdf = 0.5f * (1.0f + erff(x * kSqrtHalf));
      return {x * cdf, cdf + x * kInvSqrt2Pi * expf(-0.5f * x * x)};
    }
    case ActivationKind::kGeluTanh: {
      const float t = tanhf(kTanhScale * x * (1.0f + kTanhCubic * x * x));
      const float inner = kTanhScale * (1.0f + 3.0f * kTanhCubic * x * x);
      return {0.5f * x * (1.0f + t), 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner};
    }
    case ActivationKind::kRelu:
      // A NaN stays a NaN: it must reach the loss, where it is noticed.
      return {x < 0.0f ? 0.0f : x, x > 0.0f ? 1.0f : 0.0f};
    case ActivationKind::kRelu2: {
      const float positive = x < 0.0f ? 0.0f : x;
      return {positive * positive, x > 0.0f ? 2.0f * x : 0.0f};
    }
    case ActivationKind::kClampedSwiglu: {
      const float sigmoid = 1.0f / (1.0f + expf(-1.702f * x));
      return {x * sigmoid, sigmoid * (1.0f + 1.702f * x * (1.0f - sigmoid))};
    }
  }
  return {};
}

struct GatedSlopes {
  float value, of_gate, of_up;
};

// act(gate) * up with the clamps of the call, which let a NaN through.
__device__ inline GatedSlopes join(ActivationKind kind, float limit, float gate, float up) {
  const bool swiglu = kind == ActivationKind::kClampedSwiglu;
  const bool gate_clamped = swiglu && gate > limit;
  ValueAndSlope act = activate(kind, gate_clamped ? limit : gate);
  const bool act_clamped = !swiglu && act.value > limit;
  if (act_clamped) act.value = limit;
  const bool above = up > limit, below = up < -limit;
  const float factor = (above ? limit : below ? -limit : up) + (swiglu ? 1.0f : 0.0f);
  return {act.value * factor, gate_clamped || act_clamped ? 0.0f : act.slope * factor,
          above || below ? 0.0f : act.value};
}
__device__ inline float limit_of(double limit) {
  return limit > 0.0 ? static_cast<float>(limit) : INFINITY;
}

template <class T, int N, bool kGated>
__global__ void activation_forward_kernel(ActivationForward call) {
  const int64_t x_width = kGated ? 2 * call.width : call.width;
  for_each_pack<N>(call.rows, call.width, [&](int64_t row, int64_t column) {
    const T* x = static_cast<const T*>(call.x) + row * x_width + column;
    float gate[N], up[N];
    load(x, gate);
    if (kGated) load(x + call.width, up);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      gate[j] = kGated ? join(call.kind, limit_of(call.limit), gate[j], up[j]).value
                       : activate(call.kind, gate[j]).value;
    }
    store(static_cast<T*>(call.y) + row * call.width + column, gate);
  });
}

template <class T, int N, bool kGated>
__global__ void activation_backward_kernel(ActivationBackward call) {
  const int64_t x_width = kGated ? 2 * call.width : call.width;
  for_each_pack<N>(call.rows, call.width, [&](int64_t row, int64_t column) {
    const int64_t place = row * x_width + column;
    const T* x = static_cast<const T*>(call.x) + place;
    T* grad_x = static_cast<T*>(call.grad_x) + place;
    float gate[N], up[N], grad[N];
    load(x, gate);
    if (kGated) load(x + call.width, up);
    load(static_cast<const T*>(call.grad_y) + row * call.width + column, grad);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      if (kGated) {
        const GatedSlopes slopes = join(call.kind, limit_of(call.limit), gate[j], up[j]);
        gate[j] = grad[j] * slopes.of_gate;
        up[j] = grad[j] * slopes.of_up;
      } else {
        gate[j] = grad[j] * activate(call.kind, gate[j]).slope;
      }
    }
    store(grad_x, gate);
    if (kGated) store(grad_x + call.width, up);
  });
}

}  // namespace

void activation_forward(const ActivationForward& call, Stream stream) {
  if (call.rows == 0 || call.width == 0) return;
  const auto packed = [&](int size) { return call.width % size == 0 && aligned(call.x, call.y); };
  with_layout(call.dtype, packed, [&](auto element, auto size) {
    using T = decltype(element);
    constexpr int kSize = decltype(size)::value;
    const Tiles t = tiles(call.rows, call.width / kSize);
    launch("activation_forward",
           call.gated ? activation_forward_kernel<T, kSize, true>
                      : activation_forward_kernel<T, kSize, false>,
           t.grid, t.block, stream, call);
  });
}

void activation_backward(const ActivationBackward& call, Stream stream) {
  if (call.rows == 0 || call.width == 0) return;
  const auto packed = [&](int size) {
    return call.width % size == 0 && aligned(call.x, call.grad_y, call.grad_x);
  };
  with_layout(call.dtype, packed, [&](auto element, auto size) {
    using T = decltype(element);
    constexpr int kSize = decltype(size)::value;
    const Tiles t = tiles(call.rows, call.width / kSize);
    launch("activation_backward",
           call.gated ? activation_backward_kernel<T, kSize, true>
                      : activation_backward_kernel<T, kSize, false>,
           t.grid, t.block, stream, call);
  });
}

}  // namespace qianli::ops::cuda
