// Attention, backward: probabilities again from the saved logarithm of the softmax sum.
#include "qianli/ops/cuda/attention.cuh"
#include "qianli/ops/cuda/table.h"

namespace qianli::ops::cuda {
namespace {

// dQ, and delta [query_heads, q_rows] = rowsum(dO O) for the kernels that follow.
template <class T, int N>
__global__ void grad_query_kernel(AttentionCall call, AttentionBackward backward, float* delta) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  const int64_t head = blockIdx.y, kv_head = head / (call.query_heads / call.key_heads);
  if (row >= call.q_rows) return;
  const Place place = place_of(call, call.q_starts, row);
  const Keys keys = keys_of(call, place, row);
  const int64_t position = row - place.q_start + place.offset;
  const int64_t out_at = (row * call.query_heads + head) * call.value_dim;
  float q[N], grad[N], grad_q[N] = {}, out[N];
  load_head(head_of<T>(call.q, row, call.q_stride, head, call.q_head_stride), call.head_dim, q);
  load_head(static_cast<const T*>(backward.grad_out) + out_at, call.value_dim, grad);
  load_head(static_cast<const T*>(call.out) + out_at, call.value_dim, out);
  const float row_delta = warp_reduce(lane_dot(grad, out), Sum());
  const float lse = call.lse[head * call.q_rows + row];
  if (threadIdx.x == 0) delta[head * call.q_rows + row] = row_delta;
  for (int64_t n = 0; n < keys.count; ++n) {
    const int64_t key = keys[n];
    if (key < 0) continue;
    float k[N], v[N];
    load_head(head_of<T>(call.k, place.k_start + key, call.k_stride, kv_head, call.k_head_stride),
              call.head_dim, k);
    load_head(head_of<T>(call.v, place.k_start + key, call.v_stride, kv_head, call.v_head_stride),
              call.value_dim, v);
    const float dot = warp_reduce(lane_dot(q, k), Sum());
    const float grad_p =
        warp_reduce(lane_dot(grad, v), Sum()) * dropout_factor(call, place, head, position, key);
    const Score score = score_of(call, head, dot, key - position);
    const float ds = expf(score.z - lse) * (grad_p - row_delta) * score.cap_slope;
#pragma unroll
    for (int j = 0; j < N; ++j) grad_q[j] += ds * k[j];
  }
  T* to = static_cast<T*>(backward.grad_q) + row * backward.grad_q_stride + head * call.head_dim;
  store_head(to, call.head_dim, grad_q, static_cast<float>(call.scale));
}

// dK and dV of one key of one key head.
template <class T, int N>
__global__ void grad_key_kernel(AttentionCall call, AttentionBackward backward,
                                const float* delta) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  const int64_t kv_head = blockIdx.y, group = call.query_heads / call.key_heads;
  if (row >= call.k_rows) return;
  const Place place = place_of(call, call.k_starts, row);
  const int64_t key = row - place.k_start;
  const int64_t begin = call.causal ? clamped(key - place.offset, 0, place.q_len) : 0;
  const int64_t end =
      call.window > 0 ? clamped(key - place.offset + call.window, begin, place.q_len) : place.q_len;
  float k[N], v[N], grad_k[N] = {}, grad_v[N] = {};
  load_head(head_of<T>(call.k, row, call.k_stride, kv_head, call.k_head_stride), call.head_dim, k);
  load_head(head_of<T>(call.v, row, call.v_stride, kv_head, call.v_head_stride), call.value_dim, v);
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t q_row = place.q_start + i;
      if (call.mask && !(call.mask[q_row * call.mask_words + key / 32] >> (key % 32) & 1)) continue;
      const int64_t out_at = (q_row * call.query_heads + head) * call.value_dim;
      float q[N], grad[N];
      load_head(head_of<T>(call.q, q_row, call.q_stride, head, call.q_head_stride), call.head_dim,
                q);
      load_head(static_cast<const T*>(backward.grad_out) + out_at, call.value_dim, grad);
      const float dot = warp_reduce(lane_dot(q, k), Sum());
      const float factor = dropout_factor(call, place, head, i + place.offset, key);
      const float grad_p = warp_reduce(lane_dot(grad, v), Sum()) * factor;
      const Score score = score_of(call, head, dot, key - i - place.offset);
      const int64_t statistic = head * call.q_rows + q_row;
      const float p = expf(score.z - call.lse[statistic]);
      const float ds = p * (grad_p - delta[statistic]) * score.cap_slope;
      const float kept = p * factor;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        grad_k[j] += ds * q[j];
        grad_v[j] += kept * grad[j];
      }
    }
  }
  T* to_k =
      static_cast<T*>(backward.grad_k) + row * backward.grad_k_stride + kv_head * call.head_dim;
  T* to_v =
      static_cast<T*>(backward.grad_v) + row * backward.grad_v_stride + kv_head * call.value_dim;
  store_head(to_k, call.head_dim, grad_k, static_cast<float>(call.scale));
  store_head(to_v, call.value_dim, grad_v, 1.0f);
}

// A block per head: -sum over rows of exp(sink - lse) delta.
__global__ void grad_sink_kernel(AttentionCall call, const float* delta, float* grad_sinks) {
  const int64_t head = blockIdx.x;
  float sum = 0;
  for (int64_t row = threadIdx.x; row < call.q_rows; row += blockDim.x) {
    const int64_t at = head * call.q_rows + row;
    sum += expf(call.sinks[head] - call.lse[at]) * delta[at];
  }
  sum = row_sum(sum);
  if (threadIdx.x == 0) grad_sinks[head] -= sum;
}

// A warp per query writes its row of the mask: each lane owns every 32nd word.
__global__ void mask_kernel(AttentionCall call, uint32_t* mask) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= call.q_rows) return;
  uint32_t* words = mask + row * call.mask_words;
  for (int64_t w = threadIdx.x; w < call.mask_words; w += kWarp) words[w] = 0;
  for (int64_t n = 0; n < call.chosen_count; ++n) {
    const int64_t key = call.chosen[row * call.chosen_count + n];
    if (key < 0 || key >= call.mask_words * 32 || key / 32 % kWarp != threadIdx.x) continue;
    words[key / 32] |= uint32_t{1} << (key % 32);
  }
}

}  // namespace

void attention_backward(const AttentionBackward& args, Stream stream) {
  const AttentionForward& forward = args.forward;
  DeviceCall device(forward, stream);
  AttentionCall& call = device.call;
  int64_t longest = 0;
  for (int64_t s = 0; s < forward.sequences; ++s) {
    longest = std::max(longest, forward.k_starts[s + 1] - forward.k_starts[s]);
  }
  call.mask_words = forward.chosen ? ceil_div(longest, 32) : 0;
  const Scratch delta(sizeof(float) * call.q_rows * forward.query_heads, stream);
  const Scratch mask(sizeof(uint32_t) * call.q_rows * call.mask_words, stream);
  const dim3 block(kWarp, kWarpsPerBlock);
  if (forward.chosen && call.q_rows > 0) {
    launch("attention_backward", mask_kernel, grid_of(call.q_rows, 1), block, stream, call,
           mask.as<uint32_t>());
    call.mask = mask.as<uint32_t>();
  }
  with_heads(forward, [&](auto element, auto size) {
    using T = decltype(element);
    constexpr int kSize = decltype(size)::value;
    if (call.q_rows > 0) {
      launch("attention_backward", grad_query_kernel<T, kSize>,
             grid_of(call.q_rows, forward.query_heads), block, stream, call, args,
             delta.as<float>());
    }
    if (call.k_rows > 0) {
      launch("attention_backward", grad_key_kernel<T, kSize>,
             grid_of(call.k_rows, forward.key_heads), block, stream, call, args, delta.as<float>());
    }
  });
  if (args.grad_sinks && call.q_rows > 0) {
    launch("attention_backward", grad_sink_kernel, dim3(grid_size(forward.query_heads)), dim3(256),
           stream, call, delta.as<float>(), args.grad_sinks);
  }
}

}  // namespace qianli::ops::cuda
