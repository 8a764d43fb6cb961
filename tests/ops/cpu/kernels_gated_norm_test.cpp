#include <cmath>

#include "kernels_support.h"

namespace qianli::ops::testing {
namespace {

struct Case {
  int64_t rows, width, weight_rows, gate_rows, gap;  // gap: elements between the groups of the gate
};
constexpr Case kCases[] = {{0, 8, 1, 1, 0},   {1, 1, 1, 1, 0},    {3, 17, 1, 1, 5},
                           {6, 64, 3, 3, 20}, {300, 33, 2, 2, 0}, {4, 2051, 1, 4, 0},
                           {140, 40, 1, 2, 7}};
constexpr double kEps = 1e-5;

struct Expected {
  std::vector<double> y, rstd, grad_x, grad_gate, grad_weight;
};

double silu(double z) { return z / (1.0 + std::exp(-z)); }
double silu_slope(double z) {
  const double s = 1.0 / (1.0 + std::exp(-z));
  return s * (1.0 + z * (1.0 - s));
}

struct Inputs {
  const Case& c;
  bool gate_first;
  Array x, gate, weight, grad;

  int64_t gate_stride() const { return c.gate_rows * c.width + c.gap; }
  double z(int64_t row, int64_t i) const {
    return gate[row / c.gate_rows * gate_stride() + row % c.gate_rows * c.width + i];
  }
  double w(int64_t row, int64_t i) const { return weight[row % c.weight_rows * c.width + i]; }
  double input(int64_t row, int64_t i) const {
    return x[row * c.width + i] * (gate_first ? silu(z(row, i)) : 1.0);
  }
};

Expected reference(const Inputs& in) {
  const Case& c = in.c;
  Expected e;
  e.grad_weight.assign(static_cast<size_t>(c.weight_rows * c.width), 0.5);
  for (int64_t row = 0; row < c.rows; ++row) {
    double squares = 0.0, mean = 0.0;
    const auto width = static_cast<double>(c.width);
    for (int64_t i = 0; i < c.width; ++i) squares += in.input(row, i) * in.input(row, i);
    const double rstd = 1.0 / std::sqrt(squares / width + kEps);
    e.rstd.push_back(rstd);
    const auto behind = [&](int64_t i) { return in.gate_first ? 1.0 : silu(in.z(row, i)); };
    for (int64_t i = 0; i < c.width; ++i) {
      const double normed = in.input(row, i) * rstd, g = in.grad[row * c.width + i];
      e.y.push_back(normed * in.w(row, i) * behind(i));
      e.grad_weight[static_cast<size_t>(row % c.weight_rows * c.width + i)] +=
          g * normed * behind(i);
      mean += g * in.w(row, i) * behind(i) * normed / width;
    }
    for (int64_t i = 0; i < c.width; ++i) {
      const double normed = in.input(row, i) * rstd, g = in.grad[row * c.width + i];
      const double ds = rstd * (g * in.w(row, i) * behind(i) - normed * mean);
      e.grad_x.push_back(in.gate_first ? ds * silu(in.z(row, i)) : ds);
      const double before =
          in.gate_first ? ds * in.x[row * c.width + i] : g * in.w(row, i) * normed;
      e.grad_gate.push_back(before * silu_slope(in.z(row, i)));
    }
  }
  return e;
}

void check(const Case& c, bool gate_first, Dtype dtype) {
  SCOPED_TRACE(::testing::Message() << c.rows << " x " << c.width << " gate first " << gate_first
                                    << " dtype " << static_cast<int>(dtype));
  const int64_t size = c.rows * c.width, weights = c.weight_rows * c.width;
  Inputs in{c,
            gate_first,
            random_array(dtype, size, 1),
            random_array(dtype, c.rows / c.gate_rows * (c.gate_rows * c.width + c.gap), 2),
            random_array(dtype, weights, 3),
            random_array(dtype, size, 4)};
  const Expected want = reference(in);
  Array y(dtype, size), rstd(Dtype::kFloat32, c.rows), grad_x(dtype, size), grad_gate(dtype, size);
  Array grad_weight(Dtype::kFloat32, weights);
  for (int64_t i = 0; i < weights; ++i) grad_weight.set(i, 0.5);
  const GatedNormForward forward{.dtype = dtype,
                                 .rows = c.rows,
                                 .width = c.width,
                                 .weight_rows = c.weight_rows,
                                 .gate_first = gate_first,
                                 .eps = kEps,
                                 .x = in.x.data(),
                                 .gate = in.gate.data(),
                                 .gate_rows = c.gate_rows,
                                 .gate_stride = in.gate_stride(),
                                 .weight = in.weight.data(),
                                 .y = y.data(),
                                 .rstd = static_cast<float*>(rstd.data())};
  cpu_kernels().gated_norm_forward(forward, nullptr);
  expect_close(y, want.y, dtype, 1.0);
  expect_close(rstd, want.rstd, Dtype::kFloat32, 0.0);
  cpu_kernels().gated_norm_backward({.forward = forward,
                                     .grad_y = in.grad.data(),
                                     .grad_x = grad_x.data(),
                                     .grad_gate = grad_gate.data(),
                                     .grad_weight = static_cast<float*>(grad_weight.data())},
                                    nullptr);
  // A row of one element: its gradient is the small difference of large terms.
  const double magnitude = c.width == 1 ? 20.0 : 4.0;
  expect_close(grad_x, want.grad_x, dtype, magnitude);
  expect_close(grad_gate, want.grad_gate, dtype, magnitude);
  expect_close(grad_weight, want.grad_weight, Dtype::kFloat32,
               std::sqrt(static_cast<double>(c.rows)) + 1.0);
}

TEST(GatedNormKernels, match_double_precision) {
  on_every_target([] {
    for (const Case& c : kCases) {
      for (const bool gate_first : {false, true}) {
        for (const Dtype dtype : kDtypes) check(c, gate_first, dtype);
      }
    }
  });
}

}  // namespace
}  // namespace qianli::ops::testing
