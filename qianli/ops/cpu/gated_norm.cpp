// RMSNorm with a SiLU gate in front of it or behind it, forward and backward.
#include <algorithm>
#include <cmath>

#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"
#include "qianli/ops/cpu/row_gradients.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/gated_norm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// float32 lanes sum at most this many elements of a row before they are added up in double.
constexpr int64_t kSumBlock = 1024;

template <class T>
HWY_INLINE const T* gate_row(const GatedNormForward& a, int64_t row) {
  return static_cast<const T*>(a.gate) + row / a.gate_rows * a.gate_stride +
         row % a.gate_rows * a.width;
}

HWY_INLINE V silu(V z) { return hn::Mul(z, sigmoid(z)); }
HWY_INLINE void silu_and_slope(V z, V& value, V& slope) {
  V s, rest;
  sigmoid_and_rest(z, s, rest);
  value = hn::Mul(z, s);
  slope = hn::MulAdd(value, rest, s);
}

// sum over [0, width) of term(i, n), whose lanes behind n are 0.
template <class Term>
HWY_INLINE double long_sum(int64_t width, const Term& term) {
  double total = 0.0;
  for (int64_t begin = 0; begin < width; begin += kSumBlock) {
    V sum = zero();
    each_vector(std::min(kSumBlock, width - begin), [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      sum = hn::Add(sum, term(begin + i, n));
    });
    total += sum_of(sum);
  }
  return total;
}

template <class T>
void forward_rows(const GatedNormForward& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(a.x) + row * a.width;
    const T* gate = gate_row<T>(a, row);
    const T* weight = static_cast<const T*>(a.weight) + row % a.weight_rows * a.width;
    T* y = static_cast<T*>(a.y) + row * a.width;
    const double squares = long_sum(a.width, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      V v = load(x + i, n);
      if (a.gate_first) v = hn::Mul(v, silu(load(gate + i, n)));
      return hn::Mul(v, v);
    });
    const auto rstd =
        static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(a.width) + a.eps));
    a.rstd[row] = rstd;
    each_vector(a.width, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      const V open = silu(load(gate + i, n));
      const V scaled = hn::Mul(hn::Mul(load(x + i, n), open), set(rstd));
      store(hn::Mul(scaled, load(weight + i, n)), y + i, n);
    });
  }
}

// With s the input of the norm (x or x silu(z)), n = s * rstd and u its incoming gradient:
// ds = rstd (u - n mean(u n)).
template <class T>
void backward_rows(const GatedNormBackward& b, int64_t begin, int64_t end, float* grad_weight) {
  const GatedNormForward& a = b.forward;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * a.width, weight_at = row % a.weight_rows * a.width;
    const T* x = static_cast<const T*>(a.x) + at;
    const T* gate = gate_row<T>(a, row);
    const T* grad = static_cast<const T*>(b.grad_y) + at;
    const T* weight = static_cast<const T*>(a.weight) + weight_at;
    T *grad_x = static_cast<T*>(b.grad_x) + at, *grad_gate = static_cast<T*>(b.grad_gate) + at;
    const V rstd = set(a.rstd[row]);
    const double sum = long_sum(a.width, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      // In both forms the terms of mean(u n) are g w x silu(z) rstd, and dw = g x silu(z) rstd.
      const V open = hn::Mul(hn::Mul(load(x + i, n), rstd), silu(load(gate + i, n)));
      const V of_weight = hn::Mul(load(grad + i, n), open);
      if (grad_weight) {
        float* to = grad_weight + weight_at + i;
        store(hn::Add(load(to, n), of_weight), to, n);
      }
      return hn::Mul(of_weight, load(weight + i, n));
    });
    const V mean = set(static_cast<float>(sum / static_cast<double>(a.width)));
    each_vector(a.width, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      V open, slope;
      silu_and_slope(load(gate + i, n), open, slope);
      const V v = load(x + i, n), u = hn::Mul(load(grad + i, n), load(weight + i, n));
      if (a.gate_first) {
        const V normed = hn::Mul(hn::Mul(v, open), rstd);
        const V ds = hn::Mul(hn::NegMulAdd(normed, mean, u), rstd);
        store(hn::Mul(ds, open), grad_x + i, n);
        store(hn::Mul(hn::Mul(ds, v), slope), grad_gate + i, n);
      } else {
        const V normed = hn::Mul(v, rstd);
        store(hn::Mul(hn::NegMulAdd(normed, mean, hn::Mul(u, open)), rstd), grad_x + i, n);
        store(hn::Mul(hn::Mul(u, normed), slope), grad_gate + i, n);
      }
    });
  }
}

void GatedForwardRows(const GatedNormForward& a, int64_t begin, int64_t end) {
  if (a.dtype == Dtype::kFloat32) return forward_rows<float>(a, begin, end);
  forward_rows<uint16_t>(a, begin, end);
}

void GatedBackwardRows(const GatedNormBackward& a, int64_t begin, int64_t end, float* grad_weight) {
  if (a.forward.dtype == Dtype::kFloat32) return backward_rows<float>(a, begin, end, grad_weight);
  backward_rows<uint16_t>(a, begin, end, grad_weight);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {

HWY_EXPORT(GatedForwardRows);
HWY_EXPORT(GatedBackwardRows);

void gated_norm_forward(const GatedNormForward& args, Stream) {
  parallel_ranges(args.rows, row_grain(args.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GatedForwardRows)(args, begin, end);
  });
}

void gated_norm_backward(const GatedNormBackward& args, Stream) {
  const GatedNormForward& f = args.forward;
  sum_row_gradients(f.rows, f.width, f.weight_rows * f.width, args.grad_weight, nullptr,
                    [&](int64_t begin, int64_t end, float* grad_weight, float*) {
                      HWY_DYNAMIC_DISPATCH(GatedBackwardRows)(args, begin, end, grad_weight);
                    });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
