// AdamW on flat ranges and the squared norm used for gradient clipping.
#include <algorithm>
#include <cmath>

#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/optimizer.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

void AdamWRange(const AdamW& a, int64_t begin, int64_t end) {
  const V beta1 = set(static_cast<float>(a.beta1)), beta2 = set(static_cast<float>(a.beta2));
  const V rest1 = set(static_cast<float>(1.0 - a.beta1));
  const V rest2 = set(static_cast<float>(1.0 - a.beta2));
  const V decay = set(static_cast<float>(1.0 - a.lr * a.weight_decay));
  const V step = set(static_cast<float>(a.lr / a.bias_correction1));
  const V root_scale = set(static_cast<float>(1.0 / std::sqrt(a.bias_correction2)));
  const V eps = set(static_cast<float>(a.eps)), scale = set(static_cast<float>(a.grad_scale));
  float* parameter = a.parameter + begin;
  const float* grad = a.grad + begin;
  float *exp_avg = a.exp_avg + begin, *exp_avg_sq = a.exp_avg_sq + begin;
  auto* copy = a.bf16_copy ? static_cast<uint16_t*>(a.bf16_copy) + begin : nullptr;
  each_vector(end - begin, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
    const V g = hn::Mul(load(grad + i, n), scale);
    const V m = hn::MulAdd(beta1, load(exp_avg + i, n), hn::Mul(rest1, g));
    const V v = hn::MulAdd(beta2, load(exp_avg_sq + i, n), hn::Mul(rest2, hn::Mul(g, g)));
    const V denominator = hn::MulAdd(hn::Sqrt(v), root_scale, eps);
    const V p =
        hn::NegMulAdd(step, hn::Div(m, denominator), hn::Mul(load(parameter + i, n), decay));
    store(m, exp_avg + i, n);
    store(v, exp_avg_sq + i, n);
    store(p, parameter + i, n);
    if (copy) store(p, copy + i, n);
  });
}

// float32 squares are exact in double, so only the additions round.
double SquaredNormRange(const float* x, int64_t count) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> half;
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * step <= count; i += 4 * step) {
    const auto a = hn::PromoteTo(d, hn::LoadU(half, x + i));
    const auto b = hn::PromoteTo(d, hn::LoadU(half, x + i + step));
    const auto c = hn::PromoteTo(d, hn::LoadU(half, x + i + 2 * step));
    const auto e = hn::PromoteTo(d, hn::LoadU(half, x + i + 3 * step));
    s0 = hn::MulAdd(a, a, s0);
    s1 = hn::MulAdd(b, b, s1);
    s2 = hn::MulAdd(c, c, s2);
    s3 = hn::MulAdd(e, e, s3);
  }
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {

HWY_EXPORT(AdamWRange);
HWY_EXPORT(SquaredNormRange);

void adamw(const AdamW& args, Stream) {
  parallel_ranges(args.count, 16384, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(AdamWRange)(args, begin, end);
  });
}

// The blocks do not depend on the number of threads, so neither does the result.
void squared_norm(const SquaredNorm& args, Stream) {
  constexpr int64_t kBlock = 65536;
  const int64_t blocks = (args.count + kBlock - 1) / kBlock;
  auto* sums =
      reinterpret_cast<double*>(scratch(Slot::kShared, static_cast<size_t>(2 * blocks + 2)));
  parallel_ranges(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t from = block * kBlock;
      sums[block] = HWY_DYNAMIC_DISPATCH(SquaredNormRange)(args.x + from,
                                                           std::min(kBlock, args.count - from));
    }
  });
  double total = 0.0;
  for (int64_t block = 0; block < blocks; ++block) total += sums[block];
  *args.result = total;
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
