// RMS norm and layer norm with the residual addition in front, forward and backward.
#include <algorithm>
#include <cmath>

#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"
#include "qianli/ops/cpu/row_gradients.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/norm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// float32 lanes sum at most this many elements of a row before they are added up in double.
constexpr int64_t kSumBlock = 1024;

// Adds the residual if there is one and returns the sum of the row and of its squares.
template <class T>
HWY_INLINE void row_sums(const T* x, const T* residual, T* sum, int64_t width, double& total,
                         double& squares) {
  total = squares = 0.0;
  for (int64_t begin = 0; begin < width; begin += kSumBlock) {
    V s = zero(), q = zero();
    each_vector(std::min(kSumBlock, width - begin), [&](int64_t at, int64_t n) QIANLI_LAMBDA {
      const int64_t i = begin + at;
      V v = load(x + i, n);
      if (residual) {
        v = rounded_to<T>(hn::Add(v, load(residual + i, n)));
        store(v, sum + i, n);
      }
      s = hn::Add(s, v);
      q = hn::MulAdd(v, v, q);
    });
    total += sum_of(s);
    squares += sum_of(q);
  }
}

template <class T>
HWY_INLINE double centered_squares(const T* x, float mean, int64_t width) {
  double squares = 0.0;
  for (int64_t begin = 0; begin < width; begin += kSumBlock) {
    V q = zero();
    each_vector(std::min(kSumBlock, width - begin), [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      V v = hn::Sub(load(x + begin + i, n), set(mean));
      if (n < lanes()) v = first_lanes(v, n);
      q = hn::MulAdd(v, v, q);
    });
    squares += sum_of(q);
  }
  return squares;
}

// `base` is 1 for a weight stored as its difference from 1, else 0.
template <class T>
HWY_INLINE void normalise(const T* x, const T* weight, float base, const T* bias, T* y,
                          int64_t width, float mean, float rstd) {
  each_vector(width, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
    V v = hn::Mul(hn::Sub(load(x + i, n), set(mean)), set(rstd));
    v = hn::Mul(v, hn::Add(load(weight + i, n), set(base)));
    if (bias) v = hn::Add(v, load(bias + i, n));
    store(v, y + i, n);
  });
}

template <class T>
void forward_rows(const NormForward& a, bool centered, int64_t begin, int64_t end) {
  const float base = a.zero_centered ? 1.0f : 0.0f;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * a.width;
    const T* x = static_cast<const T*>(a.x) + at;
    T* sum = a.residual ? static_cast<T*>(a.sum) + at : nullptr;
    double total, squares;
    float mean = 0.0f;
    row_sums(x, a.residual ? static_cast<const T*>(a.residual) + at : nullptr, sum, a.width, total,
             squares);
    if (sum) x = sum;
    if (centered) {
      mean = static_cast<float>(total / static_cast<double>(a.width));
      squares = centered_squares(x, mean, a.width);
      a.mean[row] = mean;
    }
    const double variance = squares / static_cast<double>(a.width);
    a.rstd[row] = static_cast<float>(1.0 / std::sqrt(variance + a.eps));
    const int64_t weight_at = row % a.weight_rows * a.width;
    const T* bias = a.bias ? static_cast<const T*>(a.bias) + weight_at : nullptr;
    normalise(x, static_cast<const T*>(a.weight) + weight_at, base, bias, static_cast<T*>(a.y) + at,
              a.width, mean, a.rstd[row]);
  }
}

// One row's part of the weight and bias gradients, and the two sums the input gradient needs:
// sum(u) and sum(u * xhat) with u = grad_y * weight.
template <class T>
HWY_INLINE void backward_sums(const T* grad, const T* x, const T* weight, float base, int64_t width,
                              float mean, float rstd, float* grad_weight, float* grad_bias,
                              float& sum_u, float& sum_ux) {
  V su = zero(), sux = zero();
  each_vector(width, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
    const V g = load(grad + i, n);
    const V xhat = hn::Mul(hn::Sub(load(x + i, n), set(mean)), set(rstd));
    const V u = hn::Mul(g, hn::Add(load(weight + i, n), set(base)));
    su = hn::Add(su, u);
    sux = hn::MulAdd(u, xhat, sux);
    if (grad_weight) store(hn::MulAdd(g, xhat, load(grad_weight + i, n)), grad_weight + i, n);
    if (grad_bias) store(hn::Add(g, load(grad_bias + i, n)), grad_bias + i, n);
  });
  sum_u = sum_of(su);
  sum_ux = sum_of(sux);
}

// grad_x = rstd * (u - mean(u) - xhat * mean(u * xhat)) + grad_sum
template <class T>
HWY_INLINE void backward_input(const T* grad, const T* x, const T* weight, float base,
                               const T* grad_sum, T* grad_x, int64_t width, float mean, float rstd,
                               float mean_u, float mean_ux) {
  each_vector(width, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
    const V xhat = hn::Mul(hn::Sub(load(x + i, n), set(mean)), set(rstd));
    V d = hn::MulSub(load(grad + i, n), hn::Add(load(weight + i, n), set(base)), set(mean_u));
    d = hn::Mul(hn::NegMulAdd(xhat, set(mean_ux), d), set(rstd));
    if (grad_sum) d = hn::Add(d, load(grad_sum + i, n));
    store(d, grad_x + i, n);
  });
}

template <class T>
void backward_rows(const NormBackward& a, bool centered, int64_t begin, int64_t end,
                   float* grad_weight, float* grad_bias) {
  const float base = a.zero_centered ? 1.0f : 0.0f;
  const float width = static_cast<float>(a.width);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * a.width;
    const T* grad = static_cast<const T*>(a.grad_y) + at;
    const T* x = static_cast<const T*>(a.sum) + at;
    const T* grad_sum = a.grad_sum ? static_cast<const T*>(a.grad_sum) + at : nullptr;
    const int64_t weight_at = row % a.weight_rows * a.width;
    const T* weight = static_cast<const T*>(a.weight) + weight_at;
    const float mean = centered ? a.mean[row] : 0.0f;
    float sum_u, sum_ux;
    backward_sums(grad, x, weight, base, a.width, mean, a.rstd[row],
                  grad_weight ? grad_weight + weight_at : nullptr,
                  grad_bias ? grad_bias + weight_at : nullptr, sum_u, sum_ux);
    backward_input(grad, x, weight, base, grad_sum, static_cast<T*>(a.grad_x) + at, a.width, mean,
                   a.rstd[row], centered ? sum_u / width : 0.0f, sum_ux / width);
  }
}

void NormForwardRows(const NormForward& a, bool centered, int64_t begin, int64_t end) {
  if (a.dtype == Dtype::kFloat32) return forward_rows<float>(a, centered, begin, end);
  forward_rows<uint16_t>(a, centered, begin, end);
}

void NormBackwardRows(const NormBackward& a, bool centered, int64_t begin, int64_t end,
                      float* grad_weight, float* grad_bias) {
  if (a.dtype == Dtype::kFloat32) {
    return backward_rows<float>(a, centered, begin, end, grad_weight, grad_bias);
  }
  backward_rows<uint16_t>(a, centered, begin, end, grad_weight, grad_bias);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {
namespace {

HWY_EXPORT(NormForwardRows);
HWY_EXPORT(NormBackwardRows);

void forward(const NormForward& args, bool centered) {
  parallel_ranges(args.rows, row_grain(args.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(NormForwardRows)(args, centered, begin, end);
  });
}

void backward(const NormBackward& args, bool centered) {
  const int64_t size = args.weight_rows * args.width;
  sum_row_gradients(args.rows, args.width, size, args.grad_weight, args.grad_bias,
                    [&](int64_t begin, int64_t end, float* grad_weight, float* grad_bias) {
                      HWY_DYNAMIC_DISPATCH(NormBackwardRows)
                      (args, centered, begin, end, grad_weight, grad_bias);
                    });
}

}  // namespace

void rms_norm_forward(const NormForward& args, Stream) { forward(args, false); }
void rms_norm_backward(const NormBackward& args, Stream) { backward(args, false); }
void layer_norm_forward(const NormForward& args, Stream) { forward(args, true); }
void layer_norm_backward(const NormBackward& args, Stream) { backward(args, true); }

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
