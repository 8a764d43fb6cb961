#include <cmath>
#include <numeric>

#include "kernels_support.h"

namespace qianli::ops::testing {
namespace {

struct Case {
  std::vector<int64_t> counts;
  int64_t in, out;

  int64_t rows() const { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); }
  int64_t groups() const { return static_cast<int64_t>(counts.size()); }
  Groups shape(Dtype dtype) const { return {dtype, groups(), counts.data(), in, out}; }
};

// Empty groups at both ends and inside, widths that are no whole vectors, sums that are cut, rows
// and outputs beyond one block.
const std::vector<Case> kCases = {
    {{3}, 5, 7},
    {{0, 1, 0, 4, 2, 0}, 33, 70},
    {{0, 0}, 9, 4},
    {{70, 5}, 64, 200},
    {{131, 0, 17}, 20, 48},
    {{1, 1, 1}, 300, 1},
    {{6, 260}, 48, 33},
    {{2}, 520, 16},
};

struct Operands {
  Array x, weight, bias, grad_y;
  Operands(const Case& c, Dtype dtype)
      : x(random_array(dtype, c.rows() * c.in, 1)),
        weight(random_array(dtype, c.groups() * c.out * c.in, 2)),
        bias(random_array(dtype, c.groups() * c.out, 3)),
        grad_y(random_array(dtype, c.rows() * c.out, 4)) {}
};

// body(group, row) for every row.
template <class Body>
void each_row(const Case& c, const Body& body) {
  int64_t row = 0;
  for (int64_t g = 0; g < c.groups(); ++g) {
    for (int64_t i = 0; i < c.counts[g]; ++i) body(g, row++);
  }
}

void on_every_case(const std::function<void(const Case&, Dtype)>& body) {
  on_every_target([&] {
    for (const Case& c : kCases) {
      for (const Dtype dtype : kDtypes) body(c, dtype);
    }
  });
}

TEST(GroupedLinearKernels, forward_equals_the_definition) {
  on_every_case([](const Case& c, Dtype dtype) {
    for (const bool with_bias : {false, true}) {
      Operands o(c, dtype);
      std::vector<double> expected(c.rows() * c.out);
      each_row(c, [&](int64_t g, int64_t row) {
        for (int64_t j = 0; j < c.out; ++j) {
          double sum = with_bias ? o.bias[g * c.out + j] : 0.0;
          for (int64_t i = 0; i < c.in; ++i) {
            sum += o.x[row * c.in + i] * o.weight[(g * c.out + j) * c.in + i];
          }
          expected[row * c.out + j] = sum;
        }
      });
      Array y(dtype, c.rows() * c.out);
      cpu_kernels().grouped_linear_forward({.shape = c.shape(dtype),
                                            .x = o.x.data(),
                                            .weight = o.weight.data(),
                                            .bias = with_bias ? o.bias.data() : nullptr,
                                            .y = y.data()},
                                           nullptr);
      expect_close(y, expected, dtype, std::sqrt(static_cast<double>(c.in)));
      EXPECT_TRUE(y.guards_untouched());
    }
  });
}

TEST(GroupedLinearKernels, gradient_of_the_input_equals_the_definition) {
  on_every_case([](const Case& c, Dtype dtype) {
    Operands o(c, dtype);
    std::vector<double> expected(c.rows() * c.in);
    each_row(c, [&](int64_t g, int64_t row) {
      for (int64_t i = 0; i < c.in; ++i) {
        for (int64_t j = 0; j < c.out; ++j) {
          expected[row * c.in + i] +=
              o.grad_y[row * c.out + j] * o.weight[(g * c.out + j) * c.in + i];
        }
      }
    });
    Array grad_x(dtype, c.rows() * c.in);
    cpu_kernels().grouped_linear_backward_input({.shape = c.shape(dtype),
                                                 .grad_y = o.grad_y.data(),
                                                 .weight = o.weight.data(),
                                                 .grad_x = grad_x.data()},
                                                nullptr);
    expect_close(grad_x, expected, dtype, std::sqrt(static_cast<double>(c.out)));
    EXPECT_TRUE(grad_x.guards_untouched());
  });
}

// A first contribution overwrites, also where a group has no rows; a second one adds.
TEST(GroupedLinearKernels, gradients_of_the_parameters_equal_the_definition) {
  on_every_case([](const Case& c, Dtype dtype) {
    Operands o(c, dtype);
    std::vector<double> once(c.groups() * c.out * c.in), bias(c.groups() * c.out, 5.0);
    each_row(c, [&](int64_t g, int64_t row) {
      for (int64_t j = 0; j < c.out; ++j) {
        const double grad = o.grad_y[row * c.out + j];
        bias[g * c.out + j] += 2 * grad;
        for (int64_t i = 0; i < c.in; ++i) {
          once[(g * c.out + j) * c.in + i] += grad * o.x[row * c.in + i];
        }
      }
    });
    Array grad(Dtype::kFloat32, c.groups() * c.out * c.in);
    Array grad_bias(Dtype::kFloat32, c.groups() * c.out);
    for (int64_t i = 0; i < grad.size(); ++i) grad.set(i, 1234.5);
    for (int64_t i = 0; i < grad_bias.size(); ++i) grad_bias.set(i, 5.0);
    const double magnitude = std::sqrt(static_cast<double>(c.rows()) + 1.0);
    for (const bool again : {false, true}) {
      cpu_kernels().grouped_linear_backward_weight(
          {.shape = c.shape(dtype),
           .grad_y = o.grad_y.data(),
           .x = o.x.data(),
           .grad_weight = static_cast<float*>(grad.data()),
           .accumulate = again,
           .grad_bias = static_cast<float*>(grad_bias.data())},
          nullptr);
      std::vector<double> expected = once;
      for (double& value : expected) value *= again ? 2.0 : 1.0;
      expect_close(grad, expected, Dtype::kFloat32, 2 * magnitude);
    }
    expect_close(grad_bias, bias, Dtype::kFloat32, 2 * magnitude + 5.0);
    EXPECT_TRUE(grad.guards_untouched() && grad_bias.guards_untouched());
  });
}

TEST(GroupedLinearKernels, a_frozen_weight_or_bias_is_left_alone) {
  const Case c{{2, 3}, 4, 5};
  Operands o(c, Dtype::kFloat32);
  Array grad_bias(Dtype::kFloat32, 10);
  for (int64_t i = 0; i < 10; ++i) grad_bias.set(i, 0.0);
  GroupedLinearBackwardWeight call{.shape = c.shape(Dtype::kFloat32),
                                   .grad_y = o.grad_y.data(),
                                   .x = o.x.data(),
                                   .grad_weight = nullptr,
                                   .accumulate = false,
                                   .grad_bias = static_cast<float*>(grad_bias.data())};
  cpu_kernels().grouped_linear_backward_weight(call, nullptr);
  EXPECT_NEAR(grad_bias[0], o.grad_y[0] + o.grad_y[5], 1e-6);
  call.grad_bias = nullptr;
  cpu_kernels().grouped_linear_backward_weight(call,
                                               nullptr);  // nothing to do, nothing to crash on
}

}  // namespace
}  // namespace qianli::ops::testing
