#include <cmath>

#include "kernels_support.h"

namespace qianli::ops::testing {
namespace {

struct Shape {
  int64_t rows, width, weight_rows = 1;
  bool zero_centered = false;
};
constexpr Shape kShapes[] = {{0, 8},           {1, 1},       {2, 7},           {3, 64},
                             {5, 33},          {301, 100},   {70, 576},        {4, 2051},
                             {5, 33, 1, true}, {300, 24, 3}, {14, 65, 7, true}};
constexpr double kEps = 1e-5;

struct Reference {
  std::vector<double> sum, y, mean, rstd;
};

Reference reference(const Shape& s, bool centered, bool with_residual, Dtype dtype, const Array& x,
                    const Array& residual, const Array& weight, const Array* bias) {
  Reference r;
  for (int64_t row = 0; row < s.rows; ++row) {
    double mean = 0.0, squares = 0.0;
    std::vector<double> v;
    for (int64_t i = 0; i < s.width; ++i) {
      const int64_t at = row * s.width + i;
      Array one(dtype, 1);
      one.set(0,
              with_residual ? static_cast<float>(x[at]) + static_cast<float>(residual[at]) : x[at]);
      v.push_back(one[0]);
      mean += v.back() / static_cast<double>(s.width);
    }
    if (!centered) mean = 0.0;
    for (double value : v) squares += (value - mean) * (value - mean);
    const double rstd = 1.0 / std::sqrt(squares / static_cast<double>(s.width) + kEps);
    for (int64_t i = 0; i < s.width; ++i) {
      const double value = v[static_cast<size_t>(i)];
      r.sum.push_back(value);
      const int64_t w = row % s.weight_rows * s.width + i;
      const double factor = weight[w] + (s.zero_centered ? 1.0 : 0.0);
      r.y.push_back((value - mean) * rstd * factor + (bias ? (*bias)[w] : 0.0));
    }
    r.mean.push_back(mean);
    r.rstd.push_back(rstd);
  }
  return r;
}

void check_forward(const Shape& s, bool centered, bool with_residual, Dtype dtype) {
  SCOPED_TRACE(::testing::Message()
               << s.rows << " x " << s.width << " centered " << centered << " residual "
               << with_residual << " dtype " << static_cast<int>(dtype));
  const int64_t size = s.rows * s.width;
  Array x = random_array(dtype, size, 1), residual = random_array(dtype, size, 2);
  Array weight = random_array(dtype, s.weight_rows * s.width, 3);
  Array bias = random_array(dtype, s.weight_rows * s.width, 4);
  Array y(dtype, size), sum(dtype, size);
  Array mean(Dtype::kFloat32, s.rows), rstd(Dtype::kFloat32, s.rows);
  const NormForward args{.dtype = dtype,
                         .rows = s.rows,
                         .width = s.width,
                         .weight_rows = s.weight_rows,
                         .zero_centered = s.zero_centered,
                         .eps = kEps,
                         .x = x.data(),
                         .residual = with_residual ? residual.data() : nullptr,
                         .weight = weight.data(),
                         .bias = centered ? bias.data() : nullptr,
                         .y = y.data(),
                         .sum = with_residual ? sum.data() : nullptr,
                         .mean = centered ? static_cast<float*>(mean.data()) : nullptr,
                         .rstd = static_cast<float*>(rstd.data())};
  const auto& table = cpu_kernels();
  (centered ? table.layer_norm_forward : table.rms_norm_forward)(args, nullptr);
  const Reference want =
      reference(s, centered, with_residual, dtype, x, residual, weight, centered ? &bias : nullptr);
  // A row of one element has variance 0: its mean is exact, so y is too.
  expect_close(y, want.y, dtype, 1.0);
  if (with_residual) expect_close(sum, want.sum, dtype, 0.0);
  if (centered) expect_close(mean, want.mean, Dtype::kFloat32, 1.0);
  expect_close(rstd, want.rstd, Dtype::kFloat32, 0.0);
}

TEST(NormKernels, forward_matches_double_precision) {
  on_every_target([] {
    for (const Shape& shape : kShapes) {
      for (const bool centered : {false, true}) {
        for (const bool residual : {false, true}) {
          for (const Dtype dtype : kDtypes) check_forward(shape, centered, residual, dtype);
        }
      }
    }
  });
}

struct Gradients {
  std::vector<double> x, weight, bias;
};

Gradients reference_backward(const Shape& s, bool centered, const Array& grad,
                             const Array* grad_sum, const Array& sum, const Array& weight,
                             const Array& mean, const Array& rstd) {
  Gradients g{.x = {},
              .weight = std::vector<double>(static_cast<size_t>(s.weight_rows * s.width), 0.5),
              .bias = std::vector<double>(static_cast<size_t>(s.weight_rows * s.width), 0.5)};
  const auto factor = [&](int64_t w) { return weight[w] + (s.zero_centered ? 1.0 : 0.0); };
  for (int64_t row = 0; row < s.rows; ++row) {
    const double m = centered ? mean[row] : 0.0;
    double u_mean = 0.0, ux_mean = 0.0;
    for (int64_t i = 0; i < s.width; ++i) {
      const int64_t at = row * s.width + i;
      const int64_t w = row % s.weight_rows * s.width + i;
      const double xhat = (sum[at] - m) * rstd[row], u = grad[at] * factor(w);
      u_mean += u / static_cast<double>(s.width);
      ux_mean += u * xhat / static_cast<double>(s.width);
      g.weight[static_cast<size_t>(w)] += grad[at] * xhat;
      g.bias[static_cast<size_t>(w)] += grad[at];
    }
    for (int64_t i = 0; i < s.width; ++i) {
      const int64_t at = row * s.width + i;
      const double xhat = (sum[at] - m) * rstd[row];
      const double u = grad[at] * factor(row % s.weight_rows * s.width + i);
      const double centred = u - (centered ? u_mean : 0.0) - xhat * ux_mean;
      g.x.push_back(rstd[row] * centred + (grad_sum ? (*grad_sum)[at] : 0.0));
    }
  }
  return g;
}

void check_backward(const Shape& s, bool centered, bool with_grad_sum, bool frozen, Dtype dtype) {
  SCOPED_TRACE(::testing::Message() << s.rows << " x " << s.width << " centered " << centered
                                    << " dtype " << static_cast<int>(dtype));
  const int64_t size = s.rows * s.width;
  Array grad = random_array(dtype, size, 1), grad_sum = random_array(dtype, size, 2);
  const int64_t weights = s.weight_rows * s.width;
  Array sum = random_array(dtype, size, 3), weight = random_array(dtype, weights, 4);
  Array mean = random_array(Dtype::kFloat32, s.rows, 5, 0.1), rstd(Dtype::kFloat32, s.rows);
  for (int64_t row = 0; row < s.rows; ++row)
    rstd.set(row, 0.8 + 0.01 * static_cast<double>(row % 7));
  Array grad_x(dtype, size), grad_weight(Dtype::kFloat32, weights),
      grad_bias(Dtype::kFloat32, weights);
  for (int64_t i = 0; i < weights; ++i) {
    grad_weight.set(i, 0.5);
    grad_bias.set(i, 0.5);
  }
  const NormBackward args{
      .dtype = dtype,
      .rows = s.rows,
      .width = s.width,
      .weight_rows = s.weight_rows,
      .zero_centered = s.zero_centered,
      .grad_y = grad.data(),
      .grad_sum = with_grad_sum ? grad_sum.data() : nullptr,
      .sum = sum.data(),
      .weight = weight.data(),
      .mean = static_cast<const float*>(mean.data()),
      .rstd = static_cast<const float*>(rstd.data()),
      .grad_x = grad_x.data(),
      .grad_weight = frozen ? nullptr : static_cast<float*>(grad_weight.data()),
      .grad_bias = centered && !frozen ? static_cast<float*>(grad_bias.data()) : nullptr};
  const auto& table = cpu_kernels();
  (centered ? table.layer_norm_backward : table.rms_norm_backward)(args, nullptr);
  const Gradients want = reference_backward(s, centered, grad, with_grad_sum ? &grad_sum : nullptr,
                                            sum, weight, mean, rstd);
  expect_close(grad_x, want.x, dtype, 2.0);
  if (frozen) return;
  const double magnitude = std::sqrt(static_cast<double>(s.rows)) + 1.0;
  expect_close(grad_weight, want.weight, Dtype::kFloat32, magnitude);
  if (centered) expect_close(grad_bias, want.bias, Dtype::kFloat32, magnitude);
}

TEST(NormKernels, backward_matches_double_precision) {
  on_every_target([] {
    for (const Shape& shape : kShapes) {
      for (const bool centered : {false, true}) {
        for (const Dtype dtype : kDtypes) {
          check_backward(shape, centered, false, false, dtype);
          check_backward(shape, centered, true, false, dtype);
          check_backward(shape, centered, true, true, dtype);
        }
      }
    }
  });
}

}  // namespace
}  // namespace qianli::ops::testing
