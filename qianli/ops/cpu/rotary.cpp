// Rotary position embedding, pairs of both kinds, forward and (rotating back) backward.
#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/rotary.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// Pairs (2i, 2i + 1) of `count` pairs: the even and the odd dimensions as vectors.
HWY_INLINE void load_pairs(const float* from, int64_t count, V& even, V& odd) {
  if (HWY_LIKELY(count == lanes())) return hn::LoadInterleaved2(F(), from, even, odd);
  float buffer[2 * hn::MaxLanes(F())] = {};
  std::memcpy(buffer, from, static_cast<size_t>(2 * count) * sizeof(float));
  hn::LoadInterleaved2(F(), buffer, even, odd);
}
HWY_INLINE void store_pairs(V even, V odd, float* to, int64_t count) {
  if (HWY_LIKELY(count == lanes())) return hn::StoreInterleaved2(even, odd, F(), to);
  float buffer[2 * hn::MaxLanes(F())];
  hn::StoreInterleaved2(even, odd, F(), buffer);
  std::memcpy(to, buffer, static_cast<size_t>(2 * count) * sizeof(float));
}
// Two bfloat16 are one 32-bit lane, the even one in its lower half.
HWY_INLINE void load_pairs(const uint16_t* from, int64_t count, V& even, V& odd) {
  const U u;
  uint32_t buffer[hn::MaxLanes(F())] = {};
  std::memcpy(buffer, from, static_cast<size_t>(count) * sizeof(uint32_t));
  const auto both = hn::LoadU(u, buffer);
  even = hn::BitCast(F(), hn::ShiftLeft<16>(both));
  odd = hn::BitCast(F(), hn::And(both, hn::Set(u, 0xffff0000)));
}
HWY_INLINE void store_pairs(V even, V odd, uint16_t* to, int64_t count) {
  uint32_t buffer[hn::MaxLanes(F())];
  hn::StoreU(hn::Or(bf16_bits(even), hn::ShiftLeft<16>(bf16_bits(odd))), U(), buffer);
  std::memcpy(to, buffer, static_cast<size_t>(count) * sizeof(uint32_t));
}

HWY_INLINE void turn(V& a, V& b, const float* cos, const float* sin, int64_t n, V sign) {
  const V c = load(cos, n), s = hn::Mul(load(sin, n), sign);
  const V turned = hn::NegMulAdd(b, s, hn::Mul(a, c));
  b = hn::MulAdd(a, s, hn::Mul(b, c));
  a = turned;
}

template <class T, bool kInterleaved>
HWY_INLINE void rotate_head(const T* x, T* y, const float* cos, const float* sin, int64_t half,
                            V sign) {
  each_vector(half, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
    V a, b;
    if constexpr (kInterleaved) {
      load_pairs(x + 2 * i, n, a, b);
      turn(a, b, cos + i, sin + i, n, sign);
      store_pairs(a, b, y + 2 * i, n);
    } else {
      a = load(x + i, n);
      b = load(x + half + i, n);
      turn(a, b, cos + i, sin + i, n, sign);
      store(a, y + i, n);
      store(b, y + half + i, n);
    }
  });
}

template <class T>
HWY_INLINE void copy(const T* from, T* to, int64_t count) {
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
}

template <class T, bool kInterleaved>
void rotate_tokens(const Rotary& a, int64_t begin, int64_t end) {
  const int64_t half = a.rotary_dim / 2, rest = a.offset + a.rotary_dim;
  const V sign = set(a.inverse ? -1.0f : 1.0f);
  for (int64_t token = begin; token < end; ++token) {
    const T* x = static_cast<const T*>(a.x) + token * a.x_stride;
    T* y = static_cast<T*>(a.y) + token * a.y_stride;
    const int64_t row = a.positions[token] * half;
    for (int64_t head = 0; head < a.heads; ++head, x += a.x_head_stride, y += a.head_dim) {
      rotate_head<T, kInterleaved>(x + a.offset, y + a.offset, a.cos + row, a.sin + row, half,
                                   sign);
      if (x == y) continue;
      copy(x, y, a.offset);
      copy(x + rest, y + rest, a.head_dim - rest);
    }
  }
}

template <class T>
void rotate(const Rotary& a, int64_t begin, int64_t end) {
  if (a.interleaved) return rotate_tokens<T, true>(a, begin, end);
  rotate_tokens<T, false>(a, begin, end);
}

void RotateTokens(const Rotary& a, int64_t begin, int64_t end) {
  if (a.dtype == Dtype::kFloat32) return rotate<float>(a, begin, end);
  rotate<uint16_t>(a, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {

HWY_EXPORT(RotateTokens);

void rotary(const Rotary& args, Stream) {
  parallel_ranges(args.tokens, row_grain(args.heads * args.head_dim),
                  [&](int64_t begin, int64_t end) {
                    HWY_DYNAMIC_DISPATCH(RotateTokens)(args, begin, end);
                  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
