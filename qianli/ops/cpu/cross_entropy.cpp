// Softmax cross entropy over rows of logits, which are overwritten by their gradient.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/cross_entropy.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// Stands for the maximum of a block of -inf, so that exp(-inf - maximum) is 0 and not NaN.
constexpr float kLowest = -3.0e38f;

template <class T>
HWY_INLINE float block_max(const T* x, int64_t count) {
  V m0 = set(kLowest), m1 = m0;
  const int64_t step = lanes();
  int64_t i = 0;
  for (; i + 2 * step <= count; i += 2 * step) {
    m0 = hn::Max(m0, load(x + i));
    m1 = hn::Max(m1, load(x + i + step));
  }
  float result = max_of(hn::Max(m0, m1));
  for (; i < count; i += step) {
    const int64_t n = std::min(step, count - i);
    V v = load(x + i, n);
    v = hn::IfThenElse(hn::FirstN(F(), static_cast<size_t>(n)), v, set(kLowest));
    result = std::max(result, max_of(v));
  }
  return result;
}

// From the stored x to the logit z that enters the softmax: z = multiplier x, or that through the
// softcap. Both grow with x, so the largest x gives the largest z.
struct Scaled {
  V factor;
  explicit Scaled(const CrossEntropy& a) : factor(set(static_cast<float>(a.multiplier))) {}
  HWY_INLINE V logit(V x) const { return hn::Mul(x, factor); }
  HWY_INLINE void both(V x, V& z, V& slope) const {
    z = logit(x);
    slope = factor;
  }
};
struct Capped {
  V inner, cap, factor;
  explicit Capped(const CrossEntropy& a)
      : inner(set(static_cast<float>(a.multiplier / a.softcap))),
        cap(set(static_cast<float>(a.softcap))),
        factor(set(static_cast<float>(a.multiplier))) {}
  HWY_INLINE V logit(V x) const { return hn::Mul(cap, tanh_of(hn::Mul(x, inner))); }
  HWY_INLINE void both(V x, V& z, V& slope) const {
    tanh_and_slope(hn::Mul(x, inner), z, slope);
    z = hn::Mul(z, cap);
    slope = hn::Mul(slope, factor);
  }
};
template <class Map>
HWY_INLINE float logit_of(const Map& map, float x) {
  return hn::GetLane(map.logit(set(x)));
}

// Sum of exp(z - max); when `keep` is given the exponentials are stored there.
template <class T, class Map>
HWY_INLINE float block_exp_sum(const Map& map, const T* x, int64_t count, float max, float* keep) {
  V sum = zero();
  each_vector(count, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
    V e = exp_bounded(hn::Sub(map.logit(load(x + i, n)), set(max)));
    if (n < lanes()) e = first_lanes(e, n);
    if (keep) store(e, keep + i, n);
    sum = hn::Add(sum, e);
  });
  return sum_of(sum);
}

// Exponentials can be kept where they are all that the gradient needs of a logit.
template <class T, class Map>
constexpr bool kKeepsExponentials = sizeof(T) == sizeof(float) && std::is_same_v<Map, Scaled>;

// Returns the logarithm of the row's sum of exponentials; block_maxima[b] receives each block's
// maximum. Rows that become gradients hold exp(z - block maximum) afterwards where they keep it.
template <class T, class Map>
double row_logsumexp(const Map& map, T* x, int64_t vocabulary, bool keep_exponentials,
                     float* block_maxima) {
  float max = kLowest;
  double sum = 0.0;
  for (int64_t begin = 0, b = 0; begin < vocabulary; begin += kLogitBlock, ++b) {
    const int64_t count = std::min(kLogitBlock, vocabulary - begin);
    // kLowest times a multiplier could be -infinity.
    block_maxima[b] = std::max(kLowest, logit_of(map, block_max(x + begin, count)));
    float* keep = nullptr;
    if constexpr (kKeepsExponentials<T, Map>) keep = keep_exponentials ? x + begin : nullptr;
    const float part = block_exp_sum(map, x + begin, count, block_maxima[b], keep);
    const float larger = std::max(max, block_maxima[b]);
    sum = sum * std::exp(static_cast<double>(max) - larger) +
          part * std::exp(static_cast<double>(block_maxima[b]) - larger);
    max = larger;
  }
  return max + std::log(sum);
}

// x = weight * softmax(z) * dz/dx
template <class T, class Map>
HWY_INLINE void row_gradient(const Map& map, T* x, int64_t vocabulary, double lse, float weight,
                             const float* block_maxima) {
  for (int64_t begin = 0, b = 0; begin < vocabulary; begin += kLogitBlock, ++b) {
    const int64_t count = std::min(kLogitBlock, vocabulary - begin);
    T* block = x + begin;
    if constexpr (kKeepsExponentials<T, Map>) {
      const V factor =
          hn::Mul(set(static_cast<float>(weight * std::exp(block_maxima[b] - lse))), map.factor);
      each_vector(count, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
        store(hn::Mul(load(block + i, n), factor), block + i, n);
      });
    } else {
      each_vector(count, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
        V z, slope;
        map.both(load(block + i, n), z, slope);
        const V p = exp_bounded(hn::Sub(z, set(static_cast<float>(lse))));
        store(hn::Mul(hn::Mul(p, slope), set(weight)), block + i, n);
      });
    }
  }
}

template <class T>
HWY_INLINE float element(const T* x) {
  return hn::GetLane(load(x, 1));
}

template <class T, class Map>
void cross_entropy_rows(const CrossEntropy& a, int64_t begin, int64_t end, float* block_maxima) {
  const Map map(a);
  for (int64_t row = begin; row < end; ++row) {
    T* x = static_cast<T*>(a.logits) + row * a.vocabulary;
    const float weight = a.weights[row];
    if (weight == 0.0f) {
      a.losses[row] = 0.0f;
      if (!a.keep_logits) std::memset(x, 0, static_cast<size_t>(a.vocabulary) * sizeof(T));
      continue;
    }
    const int64_t label = a.labels[row];
    V label_z, label_slope;
    map.both(set(element(x + label)), label_z, label_slope);
    const double label_logit = hn::GetLane(label_z);
    const double lse = row_logsumexp(map, x, a.vocabulary, !a.keep_logits, block_maxima);
    a.losses[row] = static_cast<float>(lse - label_logit);
    if (a.keep_logits) continue;
    row_gradient(map, x, a.vocabulary, lse, weight, block_maxima);
    // expm1 keeps the digits of p - 1 when the label is almost certain.
    const double factor = weight * hn::GetLane(label_slope);
    store_scalar(static_cast<float>(factor * std::expm1(label_logit - lse)), x + label);
  }
}

template <class T>
void cross_entropy_rows(const CrossEntropy& a, int64_t begin, int64_t end, float* block_maxima) {
  if (a.softcap > 0.0) return cross_entropy_rows<T, Capped>(a, begin, end, block_maxima);
  cross_entropy_rows<T, Scaled>(a, begin, end, block_maxima);
}

void CrossEntropyRows(const CrossEntropy& a, int64_t begin, int64_t end, float* block_maxima) {
  if (a.dtype == Dtype::kFloat32) return cross_entropy_rows<float>(a, begin, end, block_maxima);
  cross_entropy_rows<uint16_t>(a, begin, end, block_maxima);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {

HWY_EXPORT(CrossEntropyRows);

void cross_entropy(const CrossEntropy& args, Stream) {
  const auto blocks = static_cast<size_t>(args.vocabulary / kLogitBlock + 1);
  parallel_ranges(args.rows, row_grain(args.vocabulary), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(CrossEntropyRows)(args, begin, end, scratch(Slot::kTask, blocks));
  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
