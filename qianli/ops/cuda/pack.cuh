// Elements in memory against float32 in registers: conversion, 16-byte access, choice of the width.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <type_traits>

#include "qianli/ops/kernels.h"

namespace qianli::ops::cuda {

using BFloat16 = __nv_bfloat16;

inline __device__ float to_float(float x) { return x; }
inline __device__ float to_float(BFloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ T from_float(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    return __float2bfloat16_rn(x);
  }
}

// The value that x has after a trip through memory as a T.
template <class T>
__device__ float rounded(float x) {
  return to_float(from_float<T>(x));
}

// N neighbours moved by one instruction (two where they take 32 bytes).
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T values[N];
};

template <int N, class T>
__device__ void load(const T* from, float (&to)[N]) {
  const auto pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = to_float(pack.values[i]);
}

template <int N, class T>
__device__ void store(T* to, const float (&from)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.values[i] = from_float<T>(from[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Elements of a 16-byte access.
template <class T>
constexpr int kPackSize = 16 / static_cast<int>(sizeof(T));

// Null pointers count as aligned.
template <class... Pointers>
bool aligned(Pointers... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

// Calls f(element, width) with `element` a value of the storage type and `width` the number of
// elements per access as a std::integral_constant: a full pack when `packed(kPackSize)` allows it,
// else one.
template <class Packed, class F>
void with_layout(Dtype dtype, Packed packed, F f) {
  const auto with = [&](auto element) {
    constexpr int kSize = kPackSize<decltype(element)>;
    if (packed(kSize)) {
      f(element, std::integral_constant<int, kSize>());
    } else {
      f(element, std::integral_constant<int, 1>());
    }
  };
  if (dtype == Dtype::kFloat32) return with(float());
  if (dtype == Dtype::kBFloat16) return with(BFloat16());
  throw std::invalid_argument("[cuda] expected a kernel call in float32 or bfloat16, got dtype " +
                              std::to_string(static_cast<int>(dtype)));
}

inline __host__ __device__ int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A grid dimension out of a 64-bit count.
inline unsigned grid_size(int64_t blocks, int64_t limit = std::numeric_limits<int32_t>::max()) {
  if (blocks > limit) throw std::length_error("[cuda] expected a smaller tensor: too many blocks");
  return static_cast<unsigned>(blocks);
}

}  // namespace qianli::ops::cuda
