// Attention with every switch of the contract, where no fused kernel of LibTorch serves it: a warp
// per query and head walks over the keys with a running softmax; backward, a warp per query gives
// dQ and a warp per key and key head gives dK and dV. No two warps write the same place, so results
// do not depend on their order. Lane l holds the elements l, l + 32, ... of a head.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/philox.cuh"
#include "qianli/ops/cuda/reduce.cuh"
#include "qianli/ops/cuda/scratch.h"
#include "qianli/ops/cuda/status.h"

namespace qianli::ops::cuda {

constexpr int kWarpsPerBlock = 4;
constexpr int kKeysAtOnce = 4;  // independent loads and reductions in flight
constexpr float kLowest =
    -1e30f;  // the maximum over no keys; finite, so that differences stay defined

// The call with its starts in device memory.
struct AttentionCall : AttentionForward {
  int64_t q_rows, k_rows;
  const uint32_t* mask;  // [q_rows, mask_words]: bit j of a query's row, it chose key j; or null
  int64_t mask_words;
};

// A row and the sequence it belongs to.
struct Place {
  int64_t sequence, q_start, q_len, k_start, k_len;
  int64_t offset;  // position of query 0, counted from key 0
};

inline __device__ Place place_of(const AttentionCall& call, const int64_t* starts, int64_t row) {
  int64_t low = 0, high = call.sequences;  // starts[low] <= row < starts[high]
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (starts[middle] <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const int64_t q_len = call.q_starts[low + 1] - call.q_starts[low],
                k_len = call.k_starts[low + 1] - call.k_starts[low];
  return {low,   call.q_starts[low],
          q_len, call.k_starts[low],
          k_len, call.offsets ? call.offsets[low] : k_len - q_len};
}

inline __device__ int64_t clamped(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}
// Query i of a sequence sees the keys [first_key, end_key) as far as masks go.
inline __device__ int64_t end_key(const AttentionCall& call, const Place& p, int64_t i) {
  return call.causal ? clamped(i + p.offset + 1, 0, p.k_len) : p.k_len;
}
inline __device__ int64_t first_key(const AttentionCall& call, const Place& p, int64_t i) {
  return call.window > 0 ? clamped(i + p.offset + 1 - call.window, 0, p.k_len) : 0;
}

template <int N, class T>
__device__ void load_head(const T* from, int64_t dim, float (&to)[N]) {
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const int64_t i = threadIdx.x + j * kWarp;
    to[j] = i < dim ? to_float(from[i]) : 0.0f;
  }
}
template <int N, class T>
__device__ void store_head(T* to, int64_t dim, const float (&from)[N], float factor) {
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const int64_t i = threadIdx.x + j * kWarp;
    if (i < dim) to[i] = from_float<T>(factor * from[j]);
  }
}
template <int N>
__device__ float lane_dot(const float (&a)[N], const float (&b)[N]) {
  float sum = 0;
#pragma unroll
  for (int j = 0; j < N; ++j) sum += a[j] * b[j];
  return sum;
}

template <class T>
__device__ const T* head_of(const void* base, int64_t row, int64_t stride, int64_t head,
                            int64_t head_stride) {
  return static_cast<const T*>(base) + row * stride + head * head_stride;
}

struct Score {
  float z, cap_slope;
};
// From the dot product of a query with a key `ahead` positions before (negative) or behind it.
inline __device__ Score score_of(const AttentionCall& call, int64_t head, float dot,
                                 int64_t ahead) {
  const float scaled = dot * static_cast<float>(call.scale), cap = static_cast<float>(call.softcap);
  Score score{scaled, 1.0f};
  if (cap > 0.0f) {
    const float e = expf(-2.0f * fabsf(scaled / cap));
    score.z = cap * tanhf(scaled / cap);
    score.cap_slope = 4.0f * e / ((1.0f + e) * (1.0f + e));  // 1 - tanh^2 without the difference
  }
  if (call.slopes) score.z += call.slopes[head] * static_cast<float>(ahead);
  return score;
}

// What dropout multiplies the probability of a query at `position` and a key by.
inline __device__ float dropout_factor(const AttentionCall& call, const Place& place, int64_t head,
                                       int64_t position, int64_t key) {
  if (call.dropout.threshold == 0) return 1.0f;
  const int64_t origin = call.origins[place.sequence];
  const auto key_position = static_cast<uint32_t>(origin + key);
  const DropoutBlock block = dropout_block(call.dropout, static_cast<uint64_t>(origin + position),
                                           key_position / static_cast<uint32_t>(kDropoutGroup),
                                           static_cast<uint32_t>(call.first_head + head));
  return dropout_factor(call.dropout, block, key_position % kDropoutGroup);
}

// What the warps of a query go over: its visible keys, or those of its list.
struct Keys {
  const int64_t* listed;
  int64_t count, first, end;

  // The n-th key, or -1.
  __device__ int64_t operator[](int64_t n) const {
    if (n >= count) return -1;
    const int64_t key = listed ? listed[n] : first + n;
    return key >= first && key < end ? key : -1;
  }
};
inline __device__ Keys keys_of(const AttentionCall& call, const Place& place, int64_t row) {
  const int64_t i = row - place.q_start;
  const int64_t first = first_key(call, place, i), end = end_key(call, place, i);
  if (!call.chosen) return {nullptr, end > first ? end - first : 0, first, end};
  return {call.chosen + row * call.chosen_count, call.chosen_count, first, end};
}

// The starts, offsets and origins of a call, copied to the device.
class DeviceCall {
 public:
  DeviceCall(const AttentionForward& given, Stream stream)
      : starts_(4 * sizeof(int64_t) * (given.sequences + 1), stream) {
    static_cast<AttentionForward&>(call) = given;
    call.q_rows = given.q_starts[given.sequences];
    call.k_rows = given.k_starts[given.sequences];
    call.mask = nullptr;
    call.mask_words = 0;
    const std::size_t count = given.sequences + 1;
    std::vector<int64_t> all(3 * count);
    std::copy_n(given.q_starts, count, all.begin());
    std::copy_n(given.k_starts, count, all.begin() + count);
    if (given.offsets) std::copy_n(given.offsets, given.sequences, all.begin() + 2 * count);
    if (given.origins) all.insert(all.end(), given.origins, given.origins + given.sequences);
    // From pageable memory: the bytes are taken before the call returns.
    check(cudaMemcpyAsync(starts_.as<int64_t>(), all.data(), all.size() * sizeof(int64_t),
                          cudaMemcpyHostToDevice, static_cast<cudaStream_t>(stream)),
          "attention");
    call.q_starts = starts_.as<int64_t>();
    call.k_starts = starts_.as<int64_t>() + count;
    if (given.offsets) call.offsets = starts_.as<int64_t>() + 2 * count;
    if (given.origins) call.origins = starts_.as<int64_t>() + 3 * count;
  }

  AttentionCall call;

 private:
  Scratch starts_;
};

// f(element, elements per lane as a constant) for the dtype and the larger head size.
template <class F>
void with_heads(const AttentionForward& call, F f) {
  const int64_t most = std::max(call.head_dim, call.value_dim);
  const auto with = [&](auto element) {
    if (most <= 2 * kWarp) return f(element, std::integral_constant<int, 2>());
    if (most <= 4 * kWarp) return f(element, std::integral_constant<int, 4>());
    if (most <= 8 * kWarp) return f(element, std::integral_constant<int, 8>());
    static_assert(kMostCudaHeadDim == 18 * kWarp);
    if (most <= kMostCudaHeadDim) return f(element, std::integral_constant<int, 18>());
    throw std::invalid_argument("[cuda] expected attention heads of at most 576 elements, got " +
                                std::to_string(most));
  };
  if (call.dtype == Dtype::kFloat32) return with(float());
  if (call.dtype == Dtype::kBFloat16) return with(BFloat16());
  throw std::invalid_argument("[cuda] expected attention in float32 or bfloat16, got dtype " +
                              std::to_string(static_cast<int>(call.dtype)));
}

inline dim3 grid_of(int64_t rows, int64_t heads) {
  return dim3(grid_size(ceil_div(rows, kWarpsPerBlock)), grid_size(heads, 65535));
}

}  // namespace qianli::ops::cuda
