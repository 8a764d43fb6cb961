// Attention, forward.
#include "qianli/ops/cuda/attention.cuh"
#include "qianli/ops/cuda/table.h"

namespace qianli::ops::cuda {
namespace {

template <class T, int N>
__global__ void forward_kernel(AttentionCall call) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  const int64_t head = blockIdx.y, kv_head = head / (call.query_heads / call.key_heads);
  if (row >= call.q_rows) return;
  const Place place = place_of(call, call.q_starts, row);
  const Keys keys = keys_of(call, place, row);
  const int64_t position = row - place.q_start + place.offset;
  float q[N], sum_v[N] = {};
  load_head(head_of<T>(call.q, row, call.q_stride, head, call.q_head_stride), call.head_dim, q);
  float maximum = kLowest, sum = 0;
  for (int64_t n = 0; n < keys.count; n += kKeysAtOnce) {
    float z[kKeysAtOnce], top = maximum;
    int64_t key[kKeysAtOnce];
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
      key[j] = keys[n + j];
      z[j] = 0;
      if (key[j] < 0) continue;
      float k[N];
      load_head(
          head_of<T>(call.k, place.k_start + key[j], call.k_stride, kv_head, call.k_head_stride),
          call.head_dim, k);
      z[j] = lane_dot(q, k);
    }
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
      const float dot = warp_reduce(z[j], Sum());
      z[j] = key[j] < 0 ? -INFINITY : score_of(call, head, dot, key[j] - position).z;
      top = fmaxf(top, z[j]);
    }
    const float factor = expf(maximum - top);
    maximum = top;
    sum *= factor;
#pragma unroll
    for (int j = 0; j < N; ++j) sum_v[j] *= factor;
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
      if (key[j] < 0) continue;
      const float p = expf(z[j] - maximum);
      float v[N];
      load_head(
          head_of<T>(call.v, place.k_start + key[j], call.v_stride, kv_head, call.v_head_stride),
          call.value_dim, v);
      sum += p;
      const float kept = p * dropout_factor(call, place, head, position, key[j]);
#pragma unroll
      for (int i = 0; i < N; ++i) sum_v[i] += kept * v[i];
    }
  }
  float factor = 1;
  if (call.sinks) {
    const float sink = call.sinks[head], top = fmaxf(maximum, sink);
    factor = expf(maximum - top);
    sum = sum * factor + expf(sink - top);
    maximum = top;
  }
  T* out = static_cast<T*>(call.out) + (row * call.query_heads + head) * call.value_dim;
  store_head(out, call.value_dim, sum_v, sum == 0.0f ? 0.0f : factor / sum);
  if (call.lse && threadIdx.x == 0) {
    call.lse[head * call.q_rows + row] = sum == 0.0f ? -INFINITY : maximum + logf(sum);
  }
}

}  // namespace

void attention_forward(const AttentionForward& args, Stream stream) {
  if (args.q_starts[args.sequences] == 0) return;
  const DeviceCall device(args, stream);
  with_heads(args, [&](auto element, auto size) {
    launch("attention_forward", forward_kernel<decltype(element), decltype(size)::value>,
           grid_of(device.call.q_rows, args.query_heads), dim3(kWarp, kWarpsPerBlock), stream,
           device.call);
  });
}

}  // namespace qianli::ops::cuda
