#include <cmath>

#include "tests/ops/cuda/array.h"

namespace qianli::testing {
namespace {

struct Case {
  int64_t rows, width, weight_rows, gate_rows, gap;  // gap: elements between the groups of the gate
};
constexpr Case kCases[] = {
    {1, 3, 1, 1, 0}, {3, 8, 1, 1, 8}, {6, 33, 3, 3, 5}, {130, 64, 2, 2, 0}, {4, 2056, 1, 4, 0}};
constexpr double kEps = 1e-5;

double silu(double z) { return z / (1.0 + std::exp(-z)); }
double silu_slope(double z) {
  const double s = 1.0 / (1.0 + std::exp(-z));
  return s * (1.0 + z * (1.0 - s));
}

struct Expected {
  std::vector<double> y, rstd, grad_x, grad_gate, grad_weight;
};

Expected expected_of(const Case& c, bool first, const Array& x, const Array& gate, int64_t stride,
                     const Array& weight, const Array& grad) {
  Expected e{{}, {}, {}, {}, std::vector<double>(c.weight_rows * c.width, 0.5)};
  for (int64_t row = 0; row < c.rows; ++row) {
    const double* v = &x.values()[row * c.width];
    const double* z = &gate.values()[row / c.gate_rows * stride + row % c.gate_rows * c.width];
    const double* g = &grad.values()[row * c.width];
    const int64_t weight_at = row % c.weight_rows * c.width;
    double squares = 0.0, mean = 0.0;
    const auto input = [&](int64_t i) { return v[i] * (first ? silu(z[i]) : 1.0); };
    const auto behind = [&](int64_t i) { return first ? 1.0 : silu(z[i]); };
    for (int64_t i = 0; i < c.width; ++i) squares += input(i) * input(i) / c.width;
    const double rstd = 1.0 / std::sqrt(squares + kEps);
    e.rstd.push_back(rstd);
    for (int64_t i = 0; i < c.width; ++i) {
      const double n = input(i) * rstd, w = weight.values()[weight_at + i];
      e.y.push_back(n * w * behind(i));
      e.grad_weight[weight_at + i] += g[i] * n * behind(i);
      mean += g[i] * w * behind(i) * n / c.width;
    }
    for (int64_t i = 0; i < c.width; ++i) {
      const double n = input(i) * rstd, u = g[i] * weight.values()[weight_at + i];
      const double ds = rstd * (u * behind(i) - n * mean);
      e.grad_x.push_back(first ? ds * silu(z[i]) : ds);
      e.grad_gate.push_back((first ? ds * v[i] : u * n) * silu_slope(z[i]));
    }
  }
  return e;
}

using CudaGatedNorm = CudaKernels;

TEST_F(CudaGatedNorm, forward_and_backward_equal_the_formula) {
  for (const Case& c : kCases) {
    for (const Dtype dtype : kDtypes) {
      for (const bool first : {false, true}) {
        const int64_t size = c.rows * c.width, stride = c.gate_rows * c.width + c.gap;
        const Array x(dtype, random_numbers(size, 1)), grad(dtype, random_numbers(size, 2));
        const Array gate(dtype, random_numbers(c.rows / c.gate_rows * stride, 3));
        const Array weight(dtype, random_numbers(c.weight_rows * c.width, 4));
        const Expected want = expected_of(c, first, x, gate, stride, weight, grad);
        const Array y(dtype, zeros(size)), rstd(Dtype::kFloat32, zeros(c.rows));
        const ops::GatedNormForward forward{.dtype = dtype,
                                            .rows = c.rows,
                                            .width = c.width,
                                            .weight_rows = c.weight_rows,
                                            .gate_first = first,
                                            .eps = kEps,
                                            .x = x.data(),
                                            .gate = gate.data(),
                                            .gate_rows = c.gate_rows,
                                            .gate_stride = stride,
                                            .weight = weight.data(),
                                            .y = y.data(),
                                            .rstd = rstd.data<float>()};
        kernels()->gated_norm_forward(forward, stream());
        const std::string what = describe(dtype, c.rows, c.width) + (first ? " gate first" : "");
        expect_near(y, want.y, tolerance(dtype), what + " y");
        expect_near(rstd, want.rstd, kFloatTolerance, what + " rstd");
        const Array grad_x(dtype, zeros(size)), grad_gate(dtype, zeros(size));
        const Array grad_weight(Dtype::kFloat32, std::vector<double>(want.grad_weight.size(), 0.5));
        kernels()->gated_norm_backward({.forward = forward,
                                        .grad_y = grad.data(),
                                        .grad_x = grad_x.data(),
                                        .grad_gate = grad_gate.data(),
                                        .grad_weight = grad_weight.data<float>()},
                                       stream());
        expect_near(grad_x, want.grad_x, tolerance(dtype), what + " dx");
        expect_near(grad_gate, want.grad_gate, tolerance(dtype), what + " dgate");
        expect_near(grad_weight, want.grad_weight, kFloatTolerance, what + " dw");
      }
    }
  }
}

}  // namespace
}  // namespace qianli::testing
