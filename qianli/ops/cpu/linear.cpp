// y = x W^T + b for a few rows of x, as in decoding token by token: what counts is reading W once,
// on all cores. (A GEMM library may take one core for a product with a vector.)
#include <algorithm>

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

// One output of kRows rows of x. A row of W is read to its end before the next one: memory gives
// twice as much to one stream as to several. Two sums for each row of x; the order of additions
// does not depend on kRows.
template <class T, int kRows>
HWY_INLINE void output(const LinearFewRows& a, const float* x, int64_t out) {
  V sums[2][kRows];
  for (auto& chain : sums) {
    for (V& sum : chain) sum = zero();
  }
  const T* w = static_cast<const T*>(a.weight) + out * a.in;
  const int64_t step = lanes();
  int64_t i = 0;
  for (; i + 2 * step <= a.in; i += 2 * step) {
    QIANLI_UNROLL for (int c = 0; c < 2; ++c) {
      const V weight = load(w + i + c * step);
      for (int r = 0; r < kRows; ++r)
        sums[c][r] = hn::MulAdd(weight, load(x + r * a.in + i + c * step), sums[c][r]);
    }
  }
  for (int c = 0; i < a.in; i += step, ++c) {
    const int64_t count = std::min(step, a.in - i);
    const V weight = load(w + i, count);
    for (int r = 0; r < kRows; ++r)
      sums[c][r] = hn::MulAdd(weight, load(x + r * a.in + i, count), sums[c][r]);
  }
  const T* bias = static_cast<const T*>(a.bias);
  const float start = bias ? hn::GetLane(load(bias + out, 1)) : 0.0f;
  for (int r = 0; r < kRows; ++r) {
    store_scalar(start + sum_of(hn::Add(sums[0][r], sums[1][r])),
                 static_cast<T*>(a.y) + r * a.out + out);
  }
}

template <class T, int kRows>
void output_range(const LinearFewRows& a, const float* x, int64_t begin, int64_t end) {
  for (int64_t out = begin; out < end; ++out) output<T, kRows>(a, x, out);
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
