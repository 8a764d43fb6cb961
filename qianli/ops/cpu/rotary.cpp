// Rotary position embedding, half style, forward and (rotating back) backward.
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

template <class T>
HWY_INLINE void rotate_head(const T* x, T* y, const float* cos, const float* sin, int64_t half,
                            V sign) {
  each_vector(half, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
    const V a = load(x + i, n), b = load(x + half + i, n);
    const V c = load(cos + i, n), s = hn::Mul(load(sin + i, n), sign);
    store(hn::NegMulAdd(b, s, hn::Mul(a, c)), y + i, n);
    store(hn::MulAdd(a, s, hn::Mul(b, c)), y + half + i, n);
  });
}

template <class T>
void rotate_tokens(const Rotary& a, int64_t begin, int64_t end) {
  const int64_t half = a.rotary_dim / 2;
  const V sign = set(a.inverse ? -1.0f : 1.0f);
  for (int64_t token = begin; token < end; ++token) {
    const T* x = static_cast<const T*>(a.x) + token * a.x_stride;
    T* y = static_cast<T*>(a.y) + token * a.y_stride;
    const int64_t row = a.positions[token] * half;
    for (int64_t head = 0; head < a.heads; ++head, x += a.head_dim, y += a.head_dim) {
      rotate_head(x, y, a.cos + row, a.sin + row, half, sign);
      if (x != y && a.rotary_dim < a.head_dim) {
        std::memcpy(y + a.rotary_dim, x + a.rotary_dim,
                    static_cast<size_t>(a.head_dim - a.rotary_dim) * sizeof(T));
      }
    }
  }
}

void RotateTokens(const Rotary& a, int64_t begin, int64_t end) {
  if (a.dtype == Dtype::kFloat32) return rotate_tokens<float>(a, begin, end);
  rotate_tokens<uint16_t>(a, begin, end);
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
