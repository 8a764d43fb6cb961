// Softmax cross entropy over rows of logits, which are overwritten by their gradient.
#include <algorithm>
#include <cmath>

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

// Sum of exp(x - max); when `keep` is given the exponentials are stored there.
template <class T>
HWY_INLINE float block_exp_sum(const T* x, int64_t count, float max, float* keep) {
  V sum = zero();
  each_vector(count, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
    V e = exp_bounded(hn::Sub(load(x + i, n), set(max)));
    if (n < lanes()) e = first_lanes(e, n);
    if (keep) store(e, keep + i, n);
    sum = hn::Add(sum, e);
  });
  return sum_of(sum);
}

// Returns the logarithm of the row's sum of exponentials; block_maxima[b] receives each block's
// maximum. float32 rows that become gradients hold exp(x - block maximum) afterwards.
template <class T>
double row_logsumexp(T* x, int64_t vocabulary, bool keep_exponentials, float* block_maxima) {
  float max = kLowest;
  double sum = 0.0;
  for (int64_t begin = 0, b = 0; begin < vocabulary; begin += kLogitBlock, ++b) {
    const int64_t count = std::min(kLogitBlock, vocabulary - begin);
    block_maxima[b] = block_max(x + begin, count);
    float* keep = nullptr;
    if constexpr (sizeof(T) == sizeof(float)) keep = keep_exponentials ? x + begin : nullptr;
    const float part = block_exp_sum(x + begin, count, block_maxima[b], keep);
    const float larger = std::max(max, block_maxima[b]);
    sum = sum * std::exp(static_cast<double>(max) - larger) +
          part * std::exp(static_cast<double>(block_maxima[b]) - larger);
    max = larger;
  }
  return max + std::log(sum);
}

// logits = weight * softmax(logits)
template <class T>
HWY_INLINE void row_gradient(T* x, int64_t vocabulary, double lse, float weight,
                             const float* block_maxima) {
  for (int64_t begin = 0, b = 0; begin < vocabulary; begin += kLogitBlock, ++b) {
    const int64_t count = std::min(kLogitBlock, vocabulary - begin);
    T* block = x + begin;
    if constexpr (sizeof(T) == sizeof(float)) {
      const auto factor = static_cast<float>(weight * std::exp(block_maxima[b] - lse));
      each_vector(count, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
        store(hn::Mul(load(block + i, n), set(factor)), block + i, n);
      });
    } else {
      each_vector(count, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
        const V p = exp_bounded(hn::Sub(load(block + i, n), set(static_cast<float>(lse))));
        store(hn::Mul(p, set(weight)), block + i, n);
      });
    }
  }
}

template <class T>
HWY_INLINE float element(const T* x) {
  return hn::GetLane(load(x, 1));
}

template <class T>
void cross_entropy_rows(const CrossEntropy& a, int64_t begin, int64_t end, float* block_maxima) {
  for (int64_t row = begin; row < end; ++row) {
    T* x = static_cast<T*>(a.logits) + row * a.vocabulary;
    const float weight = a.weights[row];
    if (weight == 0.0f) {
      a.losses[row] = 0.0f;
      if (!a.keep_logits) std::memset(x, 0, static_cast<size_t>(a.vocabulary) * sizeof(T));
      continue;
    }
    const int64_t label = a.labels[row];
    const double label_logit = element(x + label);
    const double lse = row_logsumexp(x, a.vocabulary, !a.keep_logits, block_maxima);
    a.losses[row] = static_cast<float>(lse - label_logit);
    if (a.keep_logits) continue;
    row_gradient(x, a.vocabulary, lse, weight, block_maxima);
    // expm1 keeps the digits of p - 1 when the label is almost certain.
    store_scalar(static_cast<float>(weight * std::expm1(label_logit - lse)), x + label);
  }
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
