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

// kRows rows of x by kOuts rows of W are kept in registers: 8 x 3 sums with 3 weights and an x fill
// 28 of 32, 4 x 3 fill 16 of 16.
#if HWY_ARCH_ARM_A64 || (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3)
constexpr int kMaxRows = 8;
#else
constexpr int kMaxRows = 4;
#endif
constexpr int kMaxOuts = 3;
constexpr int64_t kStrip = 16 * kMaxOuts;

// A compiler that reads a vector from memory again for each of its uses is bound by loads.
HWY_INLINE V in_register(V value) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
  asm("" : "+v"(value.raw));
#endif
  return value;
}

// Into the second cache: the fills of the first are few, and the sums wait for those.
HWY_INLINE void fetch_to_l2(const void* from) { __builtin_prefetch(from, 0, 2); }

// sums[row * kStrip + o] for kRows rows of x and kOuts rows of W. One sum for each, in the order of
// the elements: it does not depend on which others come with it. W is read in one stream, asked for
// one block ahead: memory gives twice as much to one stream as to several.
template <class T, int kRows, int kOuts>
HWY_INLINE void block(const float* x, const T* w, int64_t in, float* sums) {
  const T* ahead = w + kOuts * in;
  V sum[kRows][kOuts];
  QIANLI_UNROLL for (int r = 0; r < kRows; ++r) {
    QIANLI_UNROLL for (int o = 0; o < kOuts; ++o) sum[r][o] = zero();
  }
  const auto add = [&](int64_t i, int64_t count) QIANLI_LAMBDA {
    V weights[kOuts];
    QIANLI_UNROLL for (int o = 0; o < kOuts; ++o) weights[o] = load(w + o * in + i, count);
    QIANLI_UNROLL for (int r = 0; r < kRows; ++r) {
      const V element = in_register(load(x + r * in + i, count));
      QIANLI_UNROLL for (int o = 0; o < kOuts; ++o) {
        sum[r][o] = hn::MulAdd(weights[o], element, sum[r][o]);
      }
    }
  };
  const int64_t step = lanes();
  int64_t i = 0;
  for (; i + step <= in; i += step) {
    QIANLI_UNROLL for (int o = 0; o < kOuts; ++o) fetch_to_l2(ahead + (i * kOuts + o * step));
    add(i, step);
  }
  if constexpr (hn::MaxLanes(F()) > 1) {
    if (i < in) add(i, in - i);
  }
  QIANLI_UNROLL for (int r = 0; r < kRows; ++r) {
    QIANLI_UNROLL for (int o = 0; o < kOuts; ++o) sums[r * kStrip + o] = sum_of(sum[r][o]);
  }
}

// The rows of W come from memory for the first rows of x, and from the cache for the others.
template <class T, int kOuts>
HWY_INLINE void columns(const float* x, int64_t rows, const T* w, int64_t in, float* sums) {
  int64_t r = 0;
  for (; r + kMaxRows <= rows; r += kMaxRows) {
    block<T, kMaxRows, kOuts>(x + r * in, w, in, sums + r * kStrip);
  }
  if (kMaxRows > 4 && r + 4 <= rows) {
    block<T, 4, kOuts>(x + r * in, w, in, sums + r * kStrip);
    r += 4;
  }
  if (r + 2 <= rows) {
    block<T, 2, kOuts>(x + r * in, w, in, sums + r * kStrip);
    r += 2;
  }
  if (r < rows) block<T, 1, kOuts>(x + r * in, w, in, sums + r * kStrip);
}

template <class T>
void linear_range(const LinearFewRows& a, const float* x, int64_t begin, int64_t end) {
  const T* weight = static_cast<const T*>(a.weight);
  const T* bias = static_cast<const T*>(a.bias);
  T* y = static_cast<T*>(a.y);
  HWY_ALIGN float sums[kFewRows * kStrip];
  for (int64_t out = begin; out < end; out += kStrip) {
    const int64_t count = std::min(kStrip, end - out);
    int64_t o = 0;
    for (; o + kMaxOuts <= count; o += kMaxOuts) {
      columns<T, kMaxOuts>(x, a.rows, weight + (out + o) * a.in, a.in, sums + o);
    }
    for (; o < count; ++o) {
      columns<T, 1>(x, a.rows, weight + (out + o) * a.in, a.in, sums + o);
    }
    for (int64_t r = 0; r < a.rows; ++r) {
      each_vector(count, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
        const V sum = load(sums + r * kStrip + i);
        const V whole = bias ? hn::Add(load(bias + out + i, n), sum) : sum;
        store(whole, y + r * a.out + out + i, n);
      });
    }
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
