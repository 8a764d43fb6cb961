// SiLU, GELU (both forms), ReLU and its square, plain and gated, and the clamped SwiGLU of gpt-oss,
// forward and backward.
#include <limits>

#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/activation.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// Each activation gives its value and its slope. Smooth ones are x * s(x) with 0 <= s <= 1.
struct Silu {
  static HWY_INLINE V value(V x) { return hn::Mul(x, sigmoid(x)); }
  static HWY_INLINE void both(V x, V& value, V& slope) {
    V s, rest;
    sigmoid_and_rest(x, s, rest);
    value = hn::Mul(x, s);
    slope = hn::MulAdd(value, rest, s);  // s + x s (1 - s)
  }
};

struct Gelu {
  static HWY_INLINE V value(V x) {
    V cdf, density;
    normal_distribution(x, cdf, density);
    return hn::Mul(x, cdf);
  }
  static HWY_INLINE void both(V x, V& value, V& slope) {
    V cdf, density;
    normal_distribution(x, cdf, density);
    value = hn::Mul(x, cdf);
    slope = hn::MulAdd(x, density, cdf);
  }
};

// 0.5 (1 + tanh u) = sigmoid(2u), which does not cancel for negative u.
struct GeluTanh {
  static constexpr float kTwiceSqrt2OverPi = 1.59576912f;
  static constexpr float kCubic = 0.044715f;

  static HWY_INLINE V twice_u(V x) {
    const V inner =
        hn::MulAdd(hn::Mul(x, x), set(kTwiceSqrt2OverPi * kCubic), set(kTwiceSqrt2OverPi));
    return hn::Mul(x, inner);
  }
  static HWY_INLINE V value(V x) { return hn::Mul(x, sigmoid(twice_u(x))); }
  static HWY_INLINE void both(V x, V& value, V& slope) {
    V s, rest;
    sigmoid_and_rest(twice_u(x), s, rest);
    value = hn::Mul(x, s);
    const V inner_slope =
        hn::MulAdd(hn::Mul(x, x), set(3.0f * kTwiceSqrt2OverPi * kCubic), set(kTwiceSqrt2OverPi));
    slope = hn::MulAdd(hn::Mul(value, rest), inner_slope, s);
  }
};

struct Relu {
  static HWY_INLINE V value(V x) { return hn::IfThenZeroElse(hn::Le(x, zero()), x); }
  static HWY_INLINE void both(V x, V& y, V& slope) {
    y = value(x);
    slope = hn::IfThenElse(hn::Gt(x, zero()), set(1.0f), zero());
  }
};

struct Relu2 {
  static HWY_INLINE V value(V x) {
    const V positive = Relu::value(x);
    return hn::Mul(positive, positive);
  }
  static HWY_INLINE void both(V x, V& y, V& slope) {
    const V positive = Relu::value(x);
    y = hn::Mul(positive, positive);
    slope = hn::Add(positive, positive);
  }
};

// x sigmoid(1.702 x)
struct QuickGelu {
  static constexpr float kFactor = 1.702f;
  static HWY_INLINE V value(V x) { return hn::Mul(x, sigmoid(hn::Mul(x, set(kFactor)))); }
  static HWY_INLINE void both(V x, V& y, V& slope) {
    V s, rest;
    sigmoid_and_rest(hn::Mul(x, set(kFactor)), s, rest);
    y = hn::Mul(x, s);
    slope = hn::MulAdd(hn::Mul(y, rest), set(kFactor), s);
  }
};

// Clamps that keep a NaN. `inside` is 1 where nothing was clamped, else 0.
HWY_INLINE V clamp_above(V x, V limit, V& inside) {
  const auto beyond = hn::Gt(x, limit);
  inside = hn::IfThenZeroElse(beyond, inside);
  return hn::IfThenElse(beyond, limit, x);
}
HWY_INLINE V clamp_both(V x, V limit, V& inside) {
  const auto below = hn::Lt(x, hn::Neg(limit));
  inside = hn::IfThenZeroElse(below, inside);
  return clamp_above(hn::IfThenElse(below, hn::Neg(limit), x), limit, inside);
}

// How gate and up join. `limit` is infinite where the call has none.
template <class Act>
struct Gated {
  static HWY_INLINE V value(V gate, V up, V limit) {
    V inside = set(1.0f);
    return hn::Mul(clamp_above(Act::value(gate), limit, inside), clamp_both(up, limit, inside));
  }
  static HWY_INLINE void slopes(V gate, V up, V limit, V& of_gate, V& of_up) {
    V active, slope, gate_inside = set(1.0f), up_inside = set(1.0f);
    Act::both(gate, active, slope);
    active = clamp_above(active, limit, gate_inside);
    up = clamp_both(up, limit, up_inside);
    of_gate = hn::Mul(hn::Mul(slope, up), gate_inside);
    of_up = hn::Mul(active, up_inside);
  }
};

template <>
struct Gated<QuickGelu> {
  static HWY_INLINE V value(V gate, V up, V limit) {
    V inside = set(1.0f);
    const V active = QuickGelu::value(clamp_above(gate, limit, inside));
    return hn::Mul(active, hn::Add(clamp_both(up, limit, inside), set(1.0f)));
  }
  static HWY_INLINE void slopes(V gate, V up, V limit, V& of_gate, V& of_up) {
    V active, slope, gate_inside = set(1.0f), up_inside = set(1.0f);
    QuickGelu::both(clamp_above(gate, limit, gate_inside), active, slope);
    up = hn::Add(clamp_both(up, limit, up_inside), set(1.0f));
    of_gate = hn::Mul(hn::Mul(slope, up), gate_inside);
    of_up = hn::Mul(active, up_inside);
  }
};

HWY_INLINE V limit_of(double limit) {
  return set(limit > 0.0 ? static_cast<float>(limit) : std::numeric_limits<float>::infinity());
}

template <class T, class Act>
void forward_rows(const ActivationForward& a, int64_t begin, int64_t end) {
  const int64_t x_width = a.gated ? 2 * a.width : a.width;
  const V limit = limit_of(a.limit);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(a.x) + row * x_width;
    T* y = static_cast<T*>(a.y) + row * a.width;
    if (a.gated) {
      each_vector(a.width, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
        store(Gated<Act>::value(load(x + i, n), load(x + a.width + i, n), limit), y + i, n);
      });
    } else {
      each_vector(a.width, [&](int64_t i, int64_t n)
                               QIANLI_LAMBDA { store(Act::value(load(x + i, n)), y + i, n); });
    }
  }
}

template <class T, class Act>
void backward_rows(const ActivationBackward& a, int64_t begin, int64_t end) {
  const int64_t x_width = a.gated ? 2 * a.width : a.width;
  const V limit = limit_of(a.limit);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(a.x) + row * x_width;
    const T* grad = static_cast<const T*>(a.grad_y) + row * a.width;
    T* grad_x = static_cast<T*>(a.grad_x) + row * x_width;
    each_vector(a.width, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      const V g = load(grad + i, n);
      V slope, other;
      if (a.gated) {
        Gated<Act>::slopes(load(x + i, n), load(x + a.width + i, n), limit, slope, other);
        store(hn::Mul(g, other), grad_x + a.width + i, n);
      } else {
        Act::both(load(x + i, n), other, slope);
      }
      store(hn::Mul(g, slope), grad_x + i, n);
    });
  }
}

// Calls `rows` with the storage type and the activation of the call as template arguments.
#define QIANLI_BY_KIND(rows, T)                 \
  switch (a.kind) {                             \
    case ActivationKind::kSilu:                 \
      return rows<T, Silu>(a, begin, end);      \
    case ActivationKind::kGelu:                 \
      return rows<T, Gelu>(a, begin, end);      \
    case ActivationKind::kGeluTanh:             \
      return rows<T, GeluTanh>(a, begin, end);  \
    case ActivationKind::kRelu:                 \
      return rows<T, Relu>(a, begin, end);      \
    case ActivationKind::kRelu2:                \
      return rows<T, Relu2>(a, begin, end);     \
    case ActivationKind::kClampedSwiglu:        \
      return rows<T, QuickGelu>(a, begin, end); \
  }

void ActivationForwardRows(const ActivationForward& a, int64_t begin, int64_t end) {
  if (a.dtype == Dtype::kFloat32) {
    QIANLI_BY_KIND(forward_rows, float)
  } else {
    QIANLI_BY_KIND(forward_rows, uint16_t)
  }
}

void ActivationBackwardRows(const ActivationBackward& a, int64_t begin, int64_t end) {
  if (a.dtype == Dtype::kFloat32) {
    QIANLI_BY_KIND(backward_rows, float)
  } else {
    QIANLI_BY_KIND(backward_rows, uint16_t)
  }
}
#undef QIANLI_BY_KIND

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {

HWY_EXPORT(ActivationForwardRows);
HWY_EXPORT(ActivationBackwardRows);

void activation_forward(const ActivationForward& args, Stream) {
  parallel_ranges(args.rows, row_grain(args.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ActivationForwardRows)(args, begin, end);
  });
}

void activation_backward(const ActivationBackward& args, Stream) {
  parallel_ranges(args.rows, row_grain(args.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ActivationBackwardRows)(args, begin, end);
  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
