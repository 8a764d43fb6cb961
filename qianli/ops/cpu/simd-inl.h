// Vector building blocks, compiled once per instruction set: loads and stores of float32 and
// bfloat16 with tails, exponentials, the normal distribution. Include after <hwy/highway.h>, per
// target.
#if defined(QIANLI_OPS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QIANLI_OPS_CPU_SIMD_INL_H_
#undef QIANLI_OPS_CPU_SIMD_INL_H_
#else
#define QIANLI_OPS_CPU_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

// Lambdas do not inherit the target of the function around them.
#ifndef QIANLI_LAMBDA
#define QIANLI_LAMBDA HWY_ATTR __attribute__((always_inline))
#endif

#ifndef QIANLI_UNROLL
#ifdef __clang__
#define QIANLI_UNROLL _Pragma("unroll")
#else
#define QIANLI_UNROLL _Pragma("GCC unroll 16")
#endif
#endif

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using I = hn::Rebind<int32_t, F>;
using U = hn::Rebind<uint32_t, F>;
using H = hn::Rebind<uint16_t, F>;
using V = hn::Vec<F>;

HWY_INLINE int64_t lanes() { return static_cast<int64_t>(hn::Lanes(F())); }
HWY_INLINE V set(float value) { return hn::Set(F(), value); }
HWY_INLINE V zero() { return hn::Zero(F()); }

// bfloat16 is stored as uint16_t: the upper half of a float32.
HWY_INLINE V load(const float* from) { return hn::LoadU(F(), from); }
HWY_INLINE V load(const uint16_t* from) {
  return hn::BitCast(F(), hn::ShiftLeft<16>(hn::PromoteTo(U(), hn::LoadU(H(), from))));
}

// Round to nearest even; NaN stays NaN.
HWY_INLINE hn::Vec<U> bf16_bits(V value) {
  const U u;
  const auto bits = hn::BitCast(u, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(u, 0x7fff)));
  const auto nan = hn::RebindMask(u, hn::Ne(value, value));
  return hn::ShiftRight<16>(hn::IfThenElse(nan, hn::Set(u, 0x7fc00000), rounded));
}
HWY_INLINE void store(V value, float* to) { hn::StoreU(value, F(), to); }
HWY_INLINE void store(V value, uint16_t* to) {
  const H h;
  hn::StoreU(hn::DemoteTo(h, hn::BitCast(I(), bf16_bits(value))), h, to);
}

// The first `count` elements, the rest zero.
template <class T>
HWY_INLINE V load(const T* from, int64_t count) {
  if (HWY_LIKELY(count == lanes())) return load(from);
  T buffer[hn::MaxLanes(F())] = {};
  std::memcpy(buffer, from, static_cast<size_t>(count) * sizeof(T));
  return load(buffer);
}
template <class T>
HWY_INLINE void store(V value, T* to, int64_t count) {
  if (HWY_LIKELY(count == lanes())) return store(value, to);
  T buffer[hn::MaxLanes(F())];
  store(value, buffer);
  std::memcpy(to, buffer, static_cast<size_t>(count) * sizeof(T));
}
template <class T>
HWY_INLINE void store_scalar(float value, T* to) {
  store(set(value), to, 1);
}

// The value as it will be read back after a store to T.
template <class T>
HWY_INLINE V rounded_to(V value) {
  if constexpr (sizeof(T) == sizeof(float)) return value;
  return hn::BitCast(F(), hn::ShiftLeft<16>(bf16_bits(value)));
}

// body(i, count) for the vectors of [0, size): count is the number of lanes except in the last
// call.
template <class Body>
HWY_INLINE void each_vector(int64_t size, const Body& body) {
  const int64_t step = lanes();
  int64_t i = 0;
  for (; i + step <= size; i += step) body(i, step);
  if (i < size) body(i, size - i);
}

HWY_INLINE V first_lanes(V value, int64_t count) {
  return hn::IfThenElseZero(hn::FirstN(F(), static_cast<size_t>(count)), value);
}
HWY_INLINE float sum_of(V value) { return hn::GetLane(hn::SumOfLanes(F(), value)); }
HWY_INLINE float max_of(V value) { return hn::GetLane(hn::MaxOfLanes(F(), value)); }

// Adding this rounds to an integer and leaves it in the low bits.
constexpr float kRoundingShift = 12582912.0f;  // 1.5 * 2^23
HWY_INLINE V power_of_two(V shifted) {
  const I i;
  return hn::BitCast(F(),
                     hn::Add(hn::ShiftLeft<23>(hn::BitCast(i, shifted)), hn::Set(i, 127 << 23)));
}

// e^x = 2^n e^r with |r| <= ln(2) / 2; returns e^r - 1. `shifted` holds n for power_of_two.
HWY_INLINE V reduced_expm1(V x, V& shifted) {
  shifted = hn::MulAdd(x, set(1.44269504f), set(kRoundingShift));
  const V n = hn::Sub(shifted, set(kRoundingShift));
  V r = hn::NegMulAdd(n, set(0.693145752f), x);  // ln 2 in two parts; n * first part is exact
  r = hn::NegMulAdd(n, set(1.42860677e-6f), r);
  // (e^r - 1 - r) / r^2, relative error of e^r below 4e-9.
  V p = hn::MulAdd(set(1.381446615e-3f), r, set(8.368780487e-3f));
  p = hn::MulAdd(p, r, set(4.166839423e-2f));
  p = hn::MulAdd(p, r, set(1.666652011e-1f));
  p = hn::MulAdd(p, r, set(4.999999341e-1f));
  return hn::MulAdd(hn::Mul(p, r), r, r);
}

// e^x for x <= 88, to 1 ulp; results below the smallest normal number are 0. NaN gives NaN.
HWY_INLINE V exp_bounded(V x) {
  V shifted;
  const V p = hn::Add(reduced_expm1(x, shifted), set(1.0f));
  return hn::IfThenZeroElse(hn::Lt(x, set(-87.3365402f)), hn::Mul(p, power_of_two(shifted)));
}

// e^(2 |x|) - 1, relative to itself; |x| beyond 20, where tanh is 1 and flat, counts as 20.
HWY_INLINE V expm1_of_twice(V x) {
  const V size = hn::Abs(x), twice = hn::Add(size, size);
  V shifted;
  const V reduced =
      reduced_expm1(hn::IfThenElse(hn::Gt(twice, set(40.0f)), set(40.0f), twice), shifted);
  const V power = power_of_two(shifted);
  return hn::MulAdd(reduced, power, hn::Sub(power, set(1.0f)));
}

// tanh x = e / (e + 2) and its slope 1 - tanh^2 x = 4 (e + 1) / (e + 2)^2 with e = e^(2 |x|) - 1,
// both accurate relative to themselves. NaN gives NaN.
HWY_INLINE V tanh_of(V x) {
  const V e = expm1_of_twice(x);
  return hn::CopySign(hn::Div(e, hn::Add(e, set(2.0f))), x);
}
HWY_INLINE void tanh_and_slope(V x, V& value, V& slope) {
  const V e = expm1_of_twice(x), whole = hn::Add(e, set(2.0f));
  const V share = hn::Div(set(2.0f), whole);
  value = hn::CopySign(hn::Div(e, whole), x);
  slope = hn::Mul(hn::Mul(share, share), hn::Add(e, set(1.0f)));
}

// 2^x for x < 128, to 1 ulp; results below the smallest normal number are 0. NaN gives NaN.
HWY_INLINE V exp2_bounded(V x) {
  const V shifted = hn::Add(x, set(kRoundingShift));
  const V r = hn::Sub(x, hn::Sub(shifted, set(kRoundingShift)));
  // 2^r on |r| <= 1/2, relative error below 2e-9.
  V p = hn::MulAdd(set(1.535336061e-4f), r, set(1.339887487e-3f));
  p = hn::MulAdd(p, r, set(9.618437366e-3f));
  p = hn::MulAdd(p, r, set(5.550332470e-2f));
  p = hn::MulAdd(p, r, set(2.402264791e-1f));
  p = hn::MulAdd(p, r, set(6.931472029e-1f));
  p = hn::MulAdd(p, r, set(1.0f));
  return hn::IfThenZeroElse(hn::Lt(x, set(-126.0f)), hn::Mul(p, power_of_two(shifted)));
}

// s = 1 / (1 + e^-x) and rest = 1 - s, both accurate relative to themselves.
HWY_INLINE void sigmoid_and_rest(V x, V& s, V& rest) {
  const V e = exp_bounded(hn::Neg(hn::Abs(x)));
  const V larger = hn::Div(set(1.0f), hn::Add(set(1.0f), e));
  const V smaller = hn::Mul(e, larger);
  const auto negative = hn::Lt(x, zero());
  s = hn::IfThenElse(negative, smaller, larger);
  rest = hn::IfThenElse(negative, larger, smaller);
}
HWY_INLINE V sigmoid(V x) {
  V s, rest;
  sigmoid_and_rest(x, s, rest);
  return s;
}

// What rounding took from square = x * x.
HWY_INLINE V rounding_of_square(V x, V square) {
  const V high = hn::BitCast(F(), hn::And(hn::BitCast(U(), x), hn::Set(U(), 0xfffff000)));
  const V low = hn::Sub(x, high);  // high * high and high * low are exact
  const V cross = hn::Mul(high, low);
  const V part = hn::Add(hn::Sub(hn::Mul(high, high), square), hn::Add(cross, cross));
  return hn::MulAdd(low, low, part);
}

// The standard normal distribution: cdf = P(X <= x) = (1 + erf(x / sqrt 2)) / 2 and its density.
// The lower tail is e^(-x^2 / 2) times a polynomial in 1 / (1 + 0.33 |x|), so it keeps its relative
// accuracy (polynomial: 1e-8 for |x| <= 13.5, below which the tail is less than float32's
// smallest).
HWY_INLINE void normal_distribution(V x, V& cdf, V& density) {
  const V z = hn::Min(hn::Abs(x), set(14.0f));
  const V square = hn::Mul(z, z);
  const V square_error = rounding_of_square(z, square);
  const V e = exp_bounded(hn::Mul(square, set(-0.5f)));
  const V gauss = hn::MulAdd(hn::Mul(square_error, set(-0.5f)), e, e);
  const V t = hn::Div(set(1.0f), hn::MulAdd(z, set(0.33f), set(1.0f)));
  V p = hn::MulAdd(set(-2.638866326e-2f), t, set(1.512458536e-1f));
  p = hn::MulAdd(p, t, set(-3.282557745e-1f));
  p = hn::MulAdd(p, t, set(2.990846247e-1f));
  p = hn::MulAdd(p, t, set(-1.126150743e-1f));
  p = hn::MulAdd(p, t, set(1.488209508e-1f));
  p = hn::MulAdd(p, t, set(1.027785557e-1f));
  p = hn::MulAdd(p, t, set(1.338636576e-1f));
  p = hn::MulAdd(p, t, set(1.314586101e-1f));
  p = hn::MulAdd(p, t, set(7.264051904e-6f));
  const V tail = hn::Mul(p, gauss);
  cdf = hn::IfThenElse(hn::Lt(x, zero()), tail, hn::Sub(set(1.0f), tail));
  density = hn::Mul(gauss, set(0.398942280f));  // 1 / sqrt(2 pi)
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
