#include <algorithm>
#include <cmath>
#include <numbers>

#include "tests/ops/cuda/array.h"

namespace qianli::testing {
namespace {

using CudaRotary = CudaKernels;

struct RotaryCase {
  int64_t tokens, heads, head_dim, rotary_dim, gap;  // gap: elements between the rows
  bool in_place, inverse;
  int64_t offset = 0;
  bool interleaved = false;
};
constexpr RotaryCase kRotaryCases[] = {
    {5, 3, 64, 64, 0, false, false},          {4, 2, 128, 128, 64, true, false},
    {3, 5, 80, 32, 0, false, true},           {6, 1, 24, 20, 7, false, false},
    {2, 40, 16, 16, 16, true, true},          {1, 2, 6, 2, 0, true, false},
    {3, 2, 48, 16, 0, false, false, 32},      {3, 2, 21, 10, 1, false, true, 7},
    {4, 2, 64, 64, 0, false, false, 0, true}, {3, 2, 48, 16, 16, true, false, 32, true},
    {3, 2, 21, 10, 1, false, true, 7, true}};

TEST_F(CudaRotary, rotates_pairs_by_the_angle_of_the_position) {
  for (const Dtype dtype : kDtypes) {
    for (const RotaryCase& c : kRotaryCases) {
      const int64_t half = c.rotary_dim / 2, positions = 50, stride = c.heads * c.head_dim + c.gap;
      const std::size_t size = c.tokens * stride;
      std::vector<double> cosines(positions * half), sines(positions * half);
      for (std::size_t i = 0; i < cosines.size(); ++i) {
        cosines[i] = std::cos(0.1 * i);
        sines[i] = std::sin(0.1 * i);
      }
      std::vector<int64_t> places(c.tokens);
      for (int64_t t = 0; t < c.tokens; ++t) places[t] = (t * 17 + 3) % positions;
      const Array x(dtype, random_numbers(size, 1)), other(dtype, random_numbers(size, 2));
      const Array cosine(Dtype::kFloat32, cosines), sine(Dtype::kFloat32, sines);
      const Integers position(places);
      const Array& y = c.in_place ? x : other;

      std::vector<double> expected = y.values();  // what lies between the rows stays
      for (int64_t t = 0; t < c.tokens; ++t) {
        for (int64_t h = 0; h < c.heads; ++h) {
          const int64_t base = t * stride + h * c.head_dim;
          for (int64_t i = 0; i < c.head_dim; ++i) expected[base + i] = x.values()[base + i];
          for (int64_t i = 0; i < half; ++i) {
            const int64_t first = base + c.offset + (c.interleaved ? 2 * i : i);
            const int64_t second = base + c.offset + (c.interleaved ? 2 * i + 1 : half + i);
            const double a = x.values()[first], b = x.values()[second];
            const double co = cosine.values()[places[t] * half + i];
            const double si = sine.values()[places[t] * half + i] * (c.inverse ? -1 : 1);
            expected[first] = a * co - b * si;
            expected[second] = b * co + a * si;
          }
        }
      }
      kernels()->rotary({.dtype = dtype,
                         .tokens = c.tokens,
                         .heads = c.heads,
                         .head_dim = c.head_dim,
                         .rotary_dim = c.rotary_dim,
                         .offset = c.offset,
                         .interleaved = c.interleaved,
                         .x = x.data(),
                         .x_stride = stride,
                         .x_head_stride = c.head_dim,
                         .y = y.data(),
                         .y_stride = stride,
                         .cos = cosine.data<float>(),
                         .sin = sine.data<float>(),
                         .positions = position.data(),
                         .inverse = c.inverse},
                        stream());
      expect_near(y, expected, tolerance(dtype), describe(dtype, c.heads, c.head_dim) + " rotary");
    }
  }
}

using ops::ActivationKind;
using CudaActivation = CudaKernels;

double activate(ActivationKind kind, double x) {
  switch (kind) {
    case ActivationKind::kSilu:
      return x / (1 + std::exp(-x));
    case ActivationKind::kGelu:
      return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
    case ActivationKind::kGeluTanh:
      return 0.5 * x *
             (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case ActivationKind::kRelu:
      return x > 0 ? x : 0;
    case ActivationKind::kRelu2:
      return x > 0 ? x * x : 0;
    case ActivationKind::kClampedSwiglu:
      return x / (1 + std::exp(-1.702 * x));
  }
  return NAN;
}
// A central difference: independent of the closed form that the kernel uses.
double slope(ActivationKind kind, double x) {
  const double h = 1e-5;
  return (activate(kind, x + h) - activate(kind, x - h)) / (2 * h);
}

constexpr ActivationKind kKinds[] = {ActivationKind::kSilu, ActivationKind::kGelu,
                                     ActivationKind::kGeluTanh, ActivationKind::kRelu,
                                     ActivationKind::kRelu2};
struct Matrix {
  int64_t rows, width;
  std::size_t shift;
};
constexpr Matrix kMatrices[] = {{1, 1, 0}, {70, 8, 0}, {3, 33, 0}, {2, 64, 1}, {2, 2060, 0}};

TEST_F(CudaActivation, forward_and_backward_equal_the_formula) {
  for (const Dtype dtype : kDtypes) {
    for (const ActivationKind kind : kKinds) {
      for (const auto& [rows, width, shift] : kMatrices) {
        for (const bool gated : {false, true}) {
          const int64_t x_width = gated ? 2 * width : width;
          std::vector<double> numbers = random_numbers(rows * x_width, 1);
          for (double& x : numbers) x *= 3;
          const Array x(dtype, numbers, shift),
              grad_y(dtype, random_numbers(rows * width, 2), shift);
          const Array y(dtype, zeros(rows * width), shift),
              grad_x(dtype, zeros(rows * x_width), shift);
          std::vector<double> expected_y(rows * width), expected_grad(rows * x_width);
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t i = 0; i < width; ++i) {
              const double gate = x.values()[r * x_width + i];
              const double up = gated ? x.values()[r * x_width + width + i] : 1.0;
              const double g = grad_y.values()[r * width + i];
              expected_y[r * width + i] = activate(kind, gate) * up;
              expected_grad[r * x_width + i] = g * up * slope(kind, gate);
              if (gated) expected_grad[r * x_width + width + i] = g * activate(kind, gate);
            }
          }
          kernels()->activation_forward({dtype, kind, gated, rows, width, x.data(), y.data()},
                                        stream());
          kernels()->activation_backward(
              {dtype, kind, gated, rows, width, x.data(), grad_y.data(), grad_x.data()}, stream());
          const std::string what = describe(dtype, rows, width) + " activation " +
                                   std::to_string(static_cast<int>(kind)) + (gated ? " gated" : "");
          expect_near(y, expected_y, tolerance(dtype), what);
          expect_near(grad_x, expected_grad, tolerance(dtype), what + " grad");
        }
      }
    }
  }
}

TEST_F(CudaActivation, clamps_at_a_limit) {
  const int64_t rows = 3, width = 264;
  for (const Dtype dtype : kDtypes) {
    for (const ActivationKind kind : {ActivationKind::kSilu, ActivationKind::kClampedSwiglu}) {
      for (const double limit : {0.0, 1.5}) {
        std::vector<double> numbers = random_numbers(rows * 2 * width, 1);
        for (double& x : numbers) x *= 3;
        const Array x(dtype, numbers), grad_y(dtype, random_numbers(rows * width, 2));
        const Array y(dtype, zeros(rows * width)), grad_x(dtype, zeros(rows * 2 * width));
        std::vector<double> expected_y(rows * width), expected_grad(rows * 2 * width);
        const double most = limit > 0 ? limit : INFINITY;
        const bool swiglu = kind == ActivationKind::kClampedSwiglu;
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t i = 0; i < width; ++i) {
            const int64_t at = r * 2 * width + i;
            const double gate = x.values()[at], up = x.values()[at + width];
            const double g = grad_y.values()[r * width + i];
            const double raw = activate(kind, swiglu ? std::min(gate, most) : gate);
            const double act = swiglu ? raw : std::min(raw, most);
            const double factor = std::clamp(up, -most, most) + (swiglu ? 1.0 : 0.0);
            const bool flat = swiglu ? gate > most : raw > most;
            expected_y[r * width + i] = act * factor;
            expected_grad[at] = flat ? 0.0 : g * factor * slope(kind, gate);
            expected_grad[at + width] = std::abs(up) > most ? 0.0 : g * act;
          }
        }
        kernels()->activation_forward({dtype, kind, true, rows, width, x.data(), y.data(), limit},
                                      stream());
        kernels()->activation_backward(
            {dtype, kind, true, rows, width, x.data(), grad_y.data(), grad_x.data(), limit},
            stream());
        const std::string what = describe(dtype, rows, width) + " limit " + std::to_string(limit);
        expect_near(y, expected_y, tolerance(dtype), what);
        expect_near(grad_x, expected_grad, tolerance(dtype), what + " grad");
      }
    }
  }
}

TEST_F(CudaActivation, is_finite_for_large_inputs_and_keeps_nan) {
  const Array x(Dtype::kFloat32, {-1e4, 1e4, -88.0, 88.0, 0.0, NAN});
  const Array grad(Dtype::kFloat32, std::vector<double>(6, 1.0));
  for (const ActivationKind kind : kKinds) {
    const Array y(Dtype::kFloat32, zeros(6)), grad_x(Dtype::kFloat32, zeros(6));
    kernels()->activation_forward({Dtype::kFloat32, kind, false, 1, 6, x.data(), y.data()},
                                  stream());
    kernels()->activation_backward(
        {Dtype::kFloat32, kind, false, 1, 6, x.data(), grad.data(), grad_x.data()}, stream());
    for (int i = 0; i < 5; ++i) {
      EXPECT_TRUE(std::isfinite(y.read()[i])) << static_cast<int>(kind) << " at " << i;
      EXPECT_TRUE(std::isfinite(grad_x.read()[i])) << static_cast<int>(kind) << " slope at " << i;
    }
    EXPECT_TRUE(std::isnan(y.read()[5]));
  }
}

using CudaEmbedding = CudaKernels;

TEST_F(CudaEmbedding, forward_copies_rows) {
  for (const Dtype dtype : kDtypes) {
    for (const int64_t width : {1, 24, 33, 520}) {
      const Array table(dtype, random_numbers(11 * width, 1));
      const Integers ids({3, 0, 10, 3, 7});
      const Array y(dtype, zeros(5 * width));
      std::vector<double> expected;
      for (const int64_t id : ids.values()) {
        expected.insert(expected.end(), table.values().begin() + id * width,
                        table.values().begin() + (id + 1) * width);
      }
      kernels()->embedding_forward({dtype, 5, width, ids.data(), table.data(), y.data()}, stream());
      EXPECT_EQ(y.read(), expected) << describe(dtype, 5, width);
    }
  }
}

TEST_F(CudaEmbedding, backward_adds_equal_ids_in_token_order) {
  const int64_t tokens = 300, vocabulary = 37;
  std::vector<int64_t> chosen(tokens);
  for (int64_t t = 0; t < tokens; ++t) chosen[t] = t % 3 == 0 ? 5 : (t * t) % vocabulary;
  const Integers ids(chosen);
  for (const Dtype dtype : kDtypes) {
    for (const int64_t width : {1, 8, 33, 1100}) {
      const Array grad_y(dtype, random_numbers(tokens * width, 1));
      const Array grad_table(Dtype::kFloat32, random_numbers(vocabulary * width, 2));
      // In float and in this order: the result must be bit for bit the same.
      std::vector<float> sums(grad_table.values().begin(), grad_table.values().end());
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t i = 0; i < width; ++i) {
          sums[chosen[t] * width + i] += static_cast<float>(grad_y.values()[t * width + i]);
        }
      }
      kernels()->embedding_backward(
          {dtype, tokens, width, vocabulary, ids.data(), grad_y.data(), grad_table.data<float>()},
          stream());
      EXPECT_EQ(grad_table.read(), std::vector<double>(sums.begin(), sums.end()))
          << describe(dtype, tokens, width);
    }
  }
}

TEST_F(CudaEmbedding, a_vocabulary_of_one_and_of_a_power_of_two_are_sorted_whole) {
  for (const int64_t vocabulary : {1, 2, 256, 257}) {
    const Integers ids({vocabulary - 1, 0, vocabulary - 1, vocabulary / 2});
    const Array grad_y(Dtype::kFloat32, {1, 2, 4, 8}),
        grad_table(Dtype::kFloat32, zeros(vocabulary));
    std::vector<double> expected(vocabulary);
    for (int t = 0; t < 4; ++t) expected[ids.values()[t]] += grad_y.values()[t];
    kernels()->embedding_backward(
        {Dtype::kFloat32, 4, 1, vocabulary, ids.data(), grad_y.data(), grad_table.data<float>()},
        stream());
    EXPECT_EQ(grad_table.read(), expected) << vocabulary;
  }
}

}  // namespace
}  // namespace qianli::testing
