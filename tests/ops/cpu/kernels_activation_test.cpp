#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "kernels_support.h"

namespace qianli::ops::testing {
namespace {

using std::numbers::pi;

struct ValueAndSlope {
  double value, slope;
};

ValueAndSlope reference(ActivationKind kind, double x) {
  switch (kind) {
    case ActivationKind::kSilu: {
      const double s = 1.0 / (1.0 + std::exp(-x));
      return {x * s, s * (1.0 + x * (1.0 - s))};
    }
    case ActivationKind::kGelu: {
      const double cdf = 0.5 * std::erfc(-x / std::sqrt(2.0));
      return {x * cdf, cdf + x * std::exp(-0.5 * x * x) / std::sqrt(2.0 * pi)};
    }
    case ActivationKind::kGeluTanh: {
      const double c = std::sqrt(2.0 / pi);
      const double share = 1.0 / (1.0 + std::exp(-2.0 * c * (x + 0.044715 * x * x * x)));
      return {x * share,
              share + x * share * (1.0 - share) * 2.0 * c * (1.0 + 3.0 * 0.044715 * x * x)};
    }
    case ActivationKind::kRelu:
      return {x > 0.0 ? x : 0.0, x > 0.0 ? 1.0 : 0.0};
    case ActivationKind::kRelu2:
      return {x > 0.0 ? x * x : 0.0, x > 0.0 ? 2.0 * x : 0.0};
    case ActivationKind::kClampedSwiglu: {
      const double s = 1.0 / (1.0 + std::exp(-1.702 * x));
      return {x * s, s * (1.0 + 1.702 * x * (1.0 - s))};
    }
  }
  return {};
}

constexpr ActivationKind kKinds[] = {ActivationKind::kSilu, ActivationKind::kGelu,
                                     ActivationKind::kGeluTanh, ActivationKind::kRelu,
                                     ActivationKind::kRelu2};

struct Shape {
  int64_t rows, width;
};
constexpr Shape kShapes[] = {{0, 4}, {1, 1}, {3, 17}, {2, 64}, {130, 251}};

struct Gated {
  double y, of_gate, of_up;
};

Gated gated_reference(ActivationKind kind, double limit, double gate, double up) {
  const double most = limit > 0.0 ? limit : std::numeric_limits<double>::infinity();
  const bool swiglu = kind == ActivationKind::kClampedSwiglu;
  ValueAndSlope act = reference(kind, swiglu ? std::min(gate, most) : gate);
  if (swiglu ? gate > most : act.value > most) act.slope = 0.0;
  if (!swiglu) act.value = std::min(act.value, most);
  const double factor = std::clamp(up, -most, most) + (swiglu ? 1.0 : 0.0);
  return {act.value * factor, act.slope * factor, std::abs(up) > most ? 0.0 : act.value};
}

void check(ActivationKind kind, bool gated, double limit, const Shape& s, Dtype dtype) {
  SCOPED_TRACE(::testing::Message()
               << "kind " << static_cast<int>(kind) << " gated " << gated << " limit " << limit
               << " " << s.rows << " x " << s.width << " dtype " << static_cast<int>(dtype));
  const int64_t x_width = gated ? 2 * s.width : s.width, size = s.rows * s.width;
  Array x = random_array(dtype, s.rows * x_width, 1, 3.0), grad = random_array(dtype, size, 2);
  Array y(dtype, size), grad_x(dtype, s.rows * x_width);
  std::vector<double> want_y, want_grad(static_cast<size_t>(s.rows * x_width));
  for (int64_t row = 0; row < s.rows; ++row) {
    for (int64_t i = 0; i < s.width; ++i) {
      const int64_t at = row * x_width + i;
      const ValueAndSlope r = reference(kind, x[at]);
      const Gated both = gated ? gated_reference(kind, limit, x[at], x[at + s.width])
                               : Gated{r.value, r.slope, 0.0};
      const double g = grad[row * s.width + i];
      want_y.push_back(both.y);
      want_grad[static_cast<size_t>(at)] = g * both.of_gate;
      if (gated) want_grad[static_cast<size_t>(at + s.width)] = g * both.of_up;
    }
  }
  cpu_kernels().activation_forward({.dtype = dtype,
                                    .kind = kind,
                                    .gated = gated,
                                    .rows = s.rows,
                                    .width = s.width,
                                    .x = x.data(),
                                    .y = y.data(),
                                    .limit = limit},
                                   nullptr);
  cpu_kernels().activation_backward({.dtype = dtype,
                                     .kind = kind,
                                     .gated = gated,
                                     .rows = s.rows,
                                     .width = s.width,
                                     .x = x.data(),
                                     .grad_y = grad.data(),
                                     .grad_x = grad_x.data(),
                                     .limit = limit},
                                    nullptr);
  // Nearly relative to each value: the tails must not cancel.
  expect_close(y, want_y, dtype, 1e-3, 1e-6);
  expect_close(grad_x, want_grad, dtype, 1.0, 1e-6);
}

TEST(ActivationKernels, match_double_precision) {
  on_every_target([] {
    for (const ActivationKind kind : kKinds) {
      for (const bool gated : {false, true}) {
        for (const Shape& shape : kShapes) {
          for (const Dtype dtype : kDtypes) check(kind, gated, 0.0, shape, dtype);
        }
      }
    }
  });
}

TEST(ActivationKernels, clamp_at_a_limit) {
  on_every_target([] {
    for (const ActivationKind kind : {ActivationKind::kSilu, ActivationKind::kClampedSwiglu}) {
      for (const double limit : {0.0, 1.5, 7.0}) {
        for (const Shape& shape : kShapes) {
          for (const Dtype dtype : kDtypes) check(kind, true, limit, shape, dtype);
        }
      }
    }
  });
}

// The exact form over the whole range where float32 has a value, in relative terms.
TEST(ActivationKernels, gelu_agrees_with_erfc_everywhere) {
  on_every_target([] {
    constexpr int64_t kCount = 40001;
    Array x(Dtype::kFloat32, kCount), y(Dtype::kFloat32, kCount);
    std::vector<double> want;
    for (int64_t i = 0; i < kCount; ++i) {
      x.set(i, -12.5 + 25.0 * static_cast<double>(i) / (kCount - 1));
      want.push_back(reference(ActivationKind::kGelu, x[i]).value);
    }
    cpu_kernels().activation_forward({.dtype = Dtype::kFloat32,
                                      .kind = ActivationKind::kGelu,
                                      .gated = false,
                                      .rows = 1,
                                      .width = kCount,
                                      .x = x.data(),
                                      .y = y.data()},
                                     nullptr);
    expect_close(y, want, Dtype::kFloat32, 1e-30, 6e-7);  // below 1e-36 results may flush to 0
  });
}

TEST(ActivationKernels, extremes_stay_finite_and_nan_stays_nan) {
  on_every_target([] {
    for (const ActivationKind kind : kKinds) {
      Array x(Dtype::kFloat32, 5), y(Dtype::kFloat32, 5);
      const double values[] = {-1e4, 1e4, 0.0, -0.0, std::numeric_limits<double>::quiet_NaN()};
      for (int64_t i = 0; i < 5; ++i) x.set(i, values[i]);
      cpu_kernels().activation_forward({.dtype = Dtype::kFloat32,
                                        .kind = kind,
                                        .gated = false,
                                        .rows = 1,
                                        .width = 5,
                                        .x = x.data(),
                                        .y = y.data()},
                                       nullptr);
      EXPECT_EQ(y[0], 0.0);
      EXPECT_EQ(y[1], kind == ActivationKind::kRelu2 ? 1e8 : 1e4);
      EXPECT_EQ(y[2], 0.0);
      EXPECT_EQ(y[3], 0.0);
      EXPECT_TRUE(std::isnan(y[4])) << "kind " << static_cast<int>(kind);
    }
  });
}

}  // namespace
}  // namespace qianli::ops::testing
