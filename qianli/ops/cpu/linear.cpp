// y = x W^T + b for a few rows of x, as in decoding token by token: what counts is reading W once,
// on all cores. (A GEMM library may take one core for a product with a vector.)
#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/linear.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// kOut outputs of kRows rows of x: kOut * kRows sums in registers, every weight is loaded once. The
// order of additions does not depend on kOut or kRows.
template <class T, int kRows, int kOut>
HWY_INLINE void outputs(const LinearFewRows& a, const float* x, int64_t out) {
  V sums[kOut][kRows];
  for (auto& row : sums) {
    for (V& sum : row) sum = zero();
  }
  const T* w = static_cast<const T*>(a.weight) + out * a.in;
  each_vector(a.in, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
    V values[kRows];
    for (int r = 0; r < kRows; ++r) values[r] = load(x + r * a.in + i, n);
    for (int o = 0; o < kOut; ++o) {
      const V weight = load(w + o * a.in + i, n);
      for (int r = 0; r < kRows; ++r) sums[o][r] = hn::MulAdd(weight, values[r], sums[o][r]);
    }
  });
  const T* bias = static_cast<const T*>(a.bias);
  for (int r = 0; r < kRows; ++r) {
    T* y = static_cast<T*>(a.y) + r * a.out + out;
    for (int o = 0; o < kOut; ++o) {
      const float start = bias ? hn::GetLane(load(bias + out + o, 1)) : 0.0f;
      store_scalar(start + sum_of(sums[o][r]), y + o);
    }
  }
}

template <class T, int kRows>
void output_range(const LinearFewRows& a, const float* x, int64_t begin, int64_t end) {
  constexpr int kOut = kRows == 1 ? 4 : 2;
  int64_t out = begin;
  for (; out + kOut <= end; out += kOut) outputs<T, kRows, kOut>(a, x, out);
  for (; out < end; ++out) outputs<T, kRows, 1>(a, x, out);
}

template <class T>
void linear_range(const LinearFewRows& a, const float* x, int64_t begin, int64_t end) {
  switch (a.rows) {
    case 1:
      return output_range<T, 1>(a, x, begin, end);
    case 2:
      return output_range<T, 2>(a, x, begin, end);
    case 3:
      return output_range<T, 3>(a, x, begin, end);
    case 4:
      return output_range<T, 4>(a, x, begin, end);
  }
}

// x: [rows, in] in float32.
void LinearRange(const LinearFewRows& a, const float* x, int64_t begin, int64_t end) {
  if (a.dtype == Dtype::kFloat32) return linear_range<float>(a, x, begin, end);
  linear_range<uint16_t>(a, x, begin, end);
}

void WidenInput(const uint16_t* from, float* to, int64_t count) {
  each_vector(count,
              [&](int64_t i, int64_t n) QIANLI_LAMBDA { store(load(from + i, n), to + i, n); });
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {

HWY_EXPORT(LinearRange);
HWY_EXPORT(WidenInput);

void linear_few_rows(const LinearFewRows& args, Stream) {
  const float* x = static_cast<const float*>(args.x);
  if (args.dtype != Dtype::kFloat32) {
    float* wide = scratch(Slot::kShared, static_cast<size_t>(args.rows * args.in));
    HWY_DYNAMIC_DISPATCH(WidenInput)
    (static_cast<const uint16_t*>(args.x), wide, args.rows * args.in);
    x = wide;
  }
  // A thread's share is worth its wake-up from about 256 KB of weights.
  parallel_ranges(args.out, 4 * row_grain(args.in), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(LinearRange)(args, x, begin, end);
  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
