#include <cmath>
#include <optional>

#include "tests/ops/cuda/array.h"

namespace qianli::testing {
namespace {

struct Shape {
  int64_t rows, width;
  std::size_t shift;  // elements off alignment
  int64_t weight_rows = 1;
  bool zero_centered = false;
};
// A warp per row, a block per row, widths that are no multiple of a pack, unaligned rows, many
// rows.
constexpr Shape kShapes[] = {
    {1, 3, 0},   {3, 8, 0},    {9, 33, 0},           {5, 64, 1},           {130, 128, 0},
    {7, 768, 0}, {2, 4100, 0}, {6, 24, 0, 3, false}, {140, 33, 0, 2, true}};
constexpr double kEps = 1e-5;

struct NormCase {
  Dtype dtype;
  Shape shape;
  bool layer_norm, residual;
};

std::vector<NormCase> norm_cases() {
  std::vector<NormCase> cases;
  for (const Dtype dtype : kDtypes) {
    for (const Shape& shape : kShapes) {
      for (const bool layer_norm : {false, true}) {
        for (const bool residual : {false, true})
          cases.push_back({dtype, shape, layer_norm, residual});
      }
    }
  }
  return cases;
}

std::string name_of(const NormCase& c) {
  return std::string(c.layer_norm ? "layer_norm " : "rms_norm ") +
         describe(c.dtype, c.shape.rows, c.shape.width) + (c.residual ? " with residual" : "");
}

struct Moments {
  double mean, rstd;
};
Moments moments(const double* x, int64_t width, bool layer_norm) {
  double mean = 0, square = 0;
  for (int64_t i = 0; layer_norm && i < width; ++i) mean += x[i] / width;
  for (int64_t i = 0; i < width; ++i) square += (x[i] - mean) * (x[i] - mean) / width;
  return {mean, 1.0 / std::sqrt(square + kEps)};
}

using CudaNorm = CudaKernels;

TEST_F(CudaNorm, forward_equals_the_formula) {
  for (const NormCase& c : norm_cases()) {
    const auto [rows, width, shift, weight_rows, zero_centered] = c.shape;
    const std::size_t size = rows * width;
    const Array x(c.dtype, random_numbers(size, 1), shift),
        residual(c.dtype, random_numbers(size, 2), shift);
    const Array weight(c.dtype, random_numbers(weight_rows * width, 3), shift),
        bias(c.dtype, random_numbers(weight_rows * width, 4), shift);
    const Array y(c.dtype, zeros(size), shift), sum(c.dtype, zeros(size), shift);
    const Array mean(Dtype::kFloat32, zeros(rows)), rstd(Dtype::kFloat32, zeros(rows));
    const ops::NormForward call{.dtype = c.dtype,
                                .rows = rows,
                                .width = width,
                                .weight_rows = weight_rows,
                                .zero_centered = zero_centered,
                                .eps = kEps,
                                .x = x.data(),
                                .residual = c.residual ? residual.data() : nullptr,
                                .weight = weight.data(),
                                .bias = c.layer_norm ? bias.data() : nullptr,
                                .y = y.data(),
                                .sum = c.residual ? sum.data() : nullptr,
                                .mean = c.layer_norm ? mean.data<float>() : nullptr,
                                .rstd = rstd.data<float>()};
    (c.layer_norm ? kernels()->layer_norm_forward : kernels()->rms_norm_forward)(call, stream());

    std::vector<double> input = x.values();
    if (c.residual) {
      for (std::size_t i = 0; i < size; ++i) input[i] += residual.values()[i];
      expect_near(sum, input, tolerance(c.dtype), name_of(c) + " sum");
      input = sum.read();  // the norm is of the sum as it was stored
    }
    std::vector<double> expected(size), means(rows), rstds(rows);
    for (int64_t row = 0; row < rows; ++row) {
      const Moments m = moments(&input[row * width], width, c.layer_norm);
      means[row] = m.mean;
      rstds[row] = m.rstd;
      for (int64_t i = 0; i < width; ++i) {
        const int64_t w = row % weight_rows * width + i;
        expected[row * width + i] = (input[row * width + i] - m.mean) * m.rstd *
                                        (weight.values()[w] + (zero_centered ? 1.0 : 0.0)) +
                                    (c.layer_norm ? bias.values()[w] : 0.0);
      }
    }
    expect_near(y, expected, tolerance(c.dtype), name_of(c) + " y");
    expect_near(rstd, rstds, kFloatTolerance, name_of(c) + " rstd");
    if (c.layer_norm) expect_near(mean, means, kFloatTolerance, name_of(c) + " mean");
  }
}

struct Gradients {
  std::vector<double> x, weight, bias;
};
Gradients reference_backward(const NormCase& c, const Array& grad_y, const Array& grad_sum,
                             const Array& input, const Array& weight, std::vector<double>& means,
                             std::vector<double>& rstds) {
  const auto [rows, width, shift, weight_rows, zero_centered] = c.shape;
  Gradients g{std::vector<double>(rows * width), std::vector<double>(weight_rows * width),
              std::vector<double>(weight_rows * width)};
  for (int64_t row = 0; row < rows; ++row) {
    const double* x = &input.values()[row * width];
    const double* dy = &grad_y.values()[row * width];
    const Moments m = moments(x, width, c.layer_norm);
    means.push_back(m.mean);
    rstds.push_back(m.rstd);
    const int64_t weight_at = row % weight_rows * width;
    const double base = zero_centered ? 1.0 : 0.0;
    double mean_u = 0, mean_un = 0;
    for (int64_t i = 0; i < width; ++i) {
      const double n = (x[i] - m.mean) * m.rstd,
                   u = dy[i] * (base + weight.values()[weight_at + i]);
      mean_u += u / width;
      mean_un += u * n / width;
      g.weight[weight_at + i] += dy[i] * n;
      g.bias[weight_at + i] += dy[i];
    }
    for (int64_t i = 0; i < width; ++i) {
      const double n = (x[i] - m.mean) * m.rstd,
                   u = dy[i] * (base + weight.values()[weight_at + i]);
      g.x[row * width + i] = m.rstd * (u - n * mean_un - (c.layer_norm ? mean_u : 0.0)) +
                             (c.residual ? grad_sum.values()[row * width + i] : 0.0);
    }
  }
  return g;
}

TEST_F(CudaNorm, backward_equals_the_formula_and_adds_to_the_weight_gradient) {
  for (const NormCase& c : norm_cases()) {
    const auto [rows, width, shift, weight_rows, zero_centered] = c.shape;
    const std::size_t size = rows * width;
    const Array grad_y(c.dtype, random_numbers(size, 1), shift),
        grad_sum(c.dtype, random_numbers(size, 2), shift);
    const Array input(c.dtype, random_numbers(size, 3), shift),
        weight(c.dtype, random_numbers(weight_rows * width, 4), shift);
    std::vector<double> means, rstds;
    Gradients expected = reference_backward(c, grad_y, grad_sum, input, weight, means, rstds);
    const Array mean(Dtype::kFloat32, means), rstd(Dtype::kFloat32, rstds);
    const Array grad_x(c.dtype, zeros(size), shift);
    const Array grad_weight(Dtype::kFloat32, random_numbers(weight_rows * width, 5)),
        grad_bias(Dtype::kFloat32, random_numbers(weight_rows * width, 6));
    const ops::NormBackward call{.dtype = c.dtype,
                                 .rows = rows,
                                 .width = width,
                                 .weight_rows = weight_rows,
                                 .zero_centered = zero_centered,
                                 .grad_y = grad_y.data(),
                                 .grad_sum = c.residual ? grad_sum.data() : nullptr,
                                 .sum = input.data(),
                                 .weight = weight.data(),
                                 .mean = c.layer_norm ? mean.data<float>() : nullptr,
                                 .rstd = rstd.data<float>(),
                                 .grad_x = grad_x.data(),
                                 .grad_weight = grad_weight.data<float>(),
                                 .grad_bias = c.layer_norm ? grad_bias.data<float>() : nullptr};
    (c.layer_norm ? kernels()->layer_norm_backward : kernels()->rms_norm_backward)(call, stream());

    expect_near(grad_x, expected.x, tolerance(c.dtype), name_of(c) + " grad_x");
    for (int64_t i = 0; i < weight_rows * width; ++i) {
      expected.weight[i] += grad_weight.values()[i];
      expected.bias[i] += grad_bias.values()[i];
    }
    expect_near(grad_weight, expected.weight, kFloatTolerance, name_of(c) + " grad_weight");
    expect_near(grad_bias, c.layer_norm ? expected.bias : grad_bias.values(), kFloatTolerance,
                name_of(c) + " grad_bias");
  }
}

TEST_F(CudaNorm, backward_may_overwrite_the_gradient_it_reads) {
  const NormCase c{Dtype::kFloat32, {70, 96, 0}, false, false};
  const Array grad_y(c.dtype, random_numbers(70 * 96, 1)),
      input(c.dtype, random_numbers(70 * 96, 2));
  const Array weight(c.dtype, random_numbers(96, 3)), grad_weight(Dtype::kFloat32, zeros(96));
  std::vector<double> means, rstds;
  const Gradients expected = reference_backward(c, grad_y, grad_y, input, weight, means, rstds);
  const Array rstd(Dtype::kFloat32, rstds);
  kernels()->rms_norm_backward({.dtype = c.dtype,
                                .rows = 70,
                                .width = 96,
                                .grad_y = grad_y.data(),
                                .sum = input.data(),
                                .weight = weight.data(),
                                .rstd = rstd.data<float>(),
                                .grad_x = grad_y.data(),
                                .grad_weight = grad_weight.data<float>()},
                               stream());
  expect_near(grad_y, expected.x, kFloatTolerance, "grad_x in the place of grad_y");
  expect_near(grad_weight, expected.weight, kFloatTolerance, "grad_weight");
}

TEST_F(CudaNorm, a_frozen_weight_gets_no_gradient_and_repeats_are_bit_equal) {
  const int64_t rows = 300, width = 40;
  const Array grad_y(Dtype::kBFloat16, random_numbers(rows * width, 1)),
      input(Dtype::kBFloat16, random_numbers(rows * width, 2));
  const Array weight(Dtype::kBFloat16, random_numbers(width, 3)),
      rstd(Dtype::kFloat32, std::vector<double>(rows, 0.9));
  ops::NormBackward call{.dtype = Dtype::kBFloat16,
                         .rows = rows,
                         .width = width,
                         .grad_y = grad_y.data(),
                         .sum = input.data(),
                         .weight = weight.data(),
                         .rstd = rstd.data<float>()};
  std::optional<std::vector<double>> first_x, first_weight;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const Array grad_x(Dtype::kBFloat16, zeros(rows * width)),
        grad_weight(Dtype::kFloat32, zeros(width));
    call.grad_x = grad_x.data();
    call.grad_weight = repeat == 2 ? nullptr : grad_weight.data<float>();
    kernels()->rms_norm_backward(call, stream());
    if (!first_x) first_x = grad_x.read(), first_weight = grad_weight.read();
    EXPECT_EQ(grad_x.read(), *first_x);
    EXPECT_EQ(grad_weight.read(), repeat == 2 ? zeros(width) : *first_weight);
  }
}

}  // namespace
}  // namespace qianli::testing
