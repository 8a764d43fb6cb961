#include <cmath>

#include "kernels_support.h"

namespace qianli::ops::testing {
namespace {

struct Shape {
  std::vector<int64_t> starts;
  int64_t channels, kernel;
  bool silu, bias, tail;
};
const std::vector<Shape> kShapes = {
    {{0, 0}, 5, 4, true, true, false},     {{0, 1}, 3, 4, true, false, true},
    {{0, 2, 9}, 17, 4, true, true, false}, {{0, 150}, 130, 4, false, true, false},
    {{0, 5}, 40, 4, true, true, true},     {{0, 1, 3, 80}, 33, 3, true, false, false},
    {{0, 70}, 7, 1, false, false, false},
};

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

void check(const Shape& s, Dtype dtype) {
  SCOPED_TRACE(::testing::Message()
               << s.starts.back() << " rows, " << s.channels << " channels, kernel " << s.kernel
               << ", dtype " << static_cast<int>(dtype));
  const int64_t rows = s.starts.back(), stride = s.channels + 3;
  Array x = random_array(dtype, rows * stride, 1),
        tail = random_array(dtype, (s.kernel - 1) * s.channels, 2);
  Array weight = random_array(dtype, s.channels * s.kernel, 3),
        bias = random_array(dtype, s.channels, 4);
  Array grad_y = random_array(dtype, rows * s.channels, 5);
  std::vector<double> want(rows * s.channels), want_x(rows * s.channels, 0.0);
  std::vector<double> want_weight(s.channels * s.kernel, 0.5), want_bias(s.channels, 0.5);
  for (size_t n = 0; n + 1 < s.starts.size(); ++n) {
    for (int64_t t = s.starts[n]; t < s.starts[n + 1]; ++t) {
      for (int64_t c = 0; c < s.channels; ++c) {
        double sum = s.bias ? bias[c] : 0.0;
        for (int64_t j = 0; j < s.kernel; ++j) {
          const int64_t row = t - s.kernel + 1 + j;
          if (row >= s.starts[n]) sum += weight[c * s.kernel + j] * x[row * stride + c];
          if (row < s.starts[n] && s.tail) {
            sum += weight[c * s.kernel + j] * tail[(row + s.kernel - 1) * s.channels + c];
          }
        }
        const double gate = sigmoid(sum);
        want[t * s.channels + c] = s.silu ? sum * gate : sum;
        const double slope = s.silu ? gate * (1.0 + sum * (1.0 - gate)) : 1.0;
        const double d = grad_y[t * s.channels + c] * slope;
        want_bias[c] += d;
        for (int64_t j = 0; j < s.kernel; ++j) {
          const int64_t row = t - s.kernel + 1 + j;
          if (row < s.starts[n]) continue;
          want_x[row * s.channels + c] += d * weight[c * s.kernel + j];
          want_weight[c * s.kernel + j] += d * x[row * stride + c];
        }
      }
    }
  }
  Array y(dtype, rows * s.channels);
  const CausalConvForward forward{.dtype = dtype,
                                  .sequences = static_cast<int64_t>(s.starts.size()) - 1,
                                  .starts = s.starts.data(),
                                  .channels = s.channels,
                                  .kernel = s.kernel,
                                  .silu = s.silu,
                                  .x = x.data(),
                                  .x_stride = stride,
                                  .tail = s.tail ? tail.data() : nullptr,
                                  .weight = weight.data(),
                                  .bias = s.bias ? bias.data() : nullptr,
                                  .y = y.data()};
  cpu_kernels().causal_conv_forward(forward, nullptr);
  expect_close(y, want, dtype, 2.0);
  if (s.tail) return;  // only for decoding
  for (const bool frozen : {false, true}) {
    Array grad_x(dtype, rows * s.channels);
    Array grad_weight(Dtype::kFloat32, s.channels * s.kernel),
        grad_bias(Dtype::kFloat32, s.channels);
    for (int64_t i = 0; i < grad_weight.size(); ++i) grad_weight.set(i, 0.5);
    for (int64_t i = 0; i < grad_bias.size(); ++i) grad_bias.set(i, 0.5);
    cpu_kernels().causal_conv_backward(
        {.forward = forward,
         .grad_y = grad_y.data(),
         .grad_x = grad_x.data(),
         .grad_weight = frozen ? nullptr : static_cast<float*>(grad_weight.data()),
         .grad_bias = frozen || !s.bias ? nullptr : static_cast<float*>(grad_bias.data())},
        nullptr);
    expect_close(grad_x, want_x, dtype, 4.0);
    if (frozen) continue;
    const double magnitude = 2.0 * std::sqrt(static_cast<double>(rows)) + 1.0;
    expect_close(grad_weight, want_weight, Dtype::kFloat32, magnitude);
    if (s.bias) expect_close(grad_bias, want_bias, Dtype::kFloat32, magnitude);
  }
}

TEST(CausalConvKernels, values_and_gradients_match_double_precision) {
  on_every_target([] {
    for (const Shape& shape : kShapes) {
      for (const Dtype dtype : kDtypes) check(shape, dtype);
    }
  });
}

}  // namespace
}  // namespace qianli::ops::testing
