#include <cmath>

#include "kernels_support.h"

namespace qianli::ops::testing {
namespace {

struct Case {
  int64_t tokens, heads, head_dim, rotary_dim, x_gap, y_gap;
  bool in_place, inverse;
  int64_t offset = 0;
  bool interleaved = false, by_heads = false;  // x is [heads, tokens, head_dim]
};
constexpr Case kCases[] = {
    {0, 2, 8, 8, 0, 0, false, false},
    {3, 2, 64, 64, 0, 0, false, false},
    {3, 2, 64, 64, 5, 3, false, true},
    {7, 3, 20, 10, 1, 0, false, false},
    {200, 4, 96, 24, 8, 8, true, false},
    {9, 1, 2, 2, 0, 0, true, true},
    {5, 3, 24, 8, 0, 0, false, false, 16},
    {5, 3, 50, 34, 1, 2, false, true, 7},
    {4, 2, 64, 64, 0, 0, false, false, 0, true},
    {6, 2, 77, 50, 3, 0, false, true, 9, true},
    {6, 2, 40, 12, 4, 4, true, false, 28, true},
    {5, 3, 20, 10, 0, 0, false, false, 3, false, true},
    {5, 3, 20, 10, 0, 0, false, false, 3, true, true},
};

void check(const Case& c, Dtype dtype) {
  SCOPED_TRACE(::testing::Message() << c.tokens << " tokens, head " << c.head_dim << ", rotary "
                                    << c.rotary_dim << ", dtype " << static_cast<int>(dtype));
  constexpr int64_t kPositions = 11;
  const int64_t half = c.rotary_dim / 2, row = c.heads * c.head_dim;
  const int64_t x_stride = c.by_heads ? c.head_dim : row + c.x_gap;
  const int64_t x_head_stride = c.by_heads ? c.tokens * c.head_dim : c.head_dim;
  const int64_t y_stride = c.in_place ? x_stride : row + c.y_gap;
  Array x = random_array(dtype, c.tokens * (row + c.x_gap), 1);
  Array y = c.in_place ? x : random_array(dtype, c.tokens * y_stride, 2);
  Array cos(Dtype::kFloat32, kPositions * half), sin(Dtype::kFloat32, kPositions * half);
  for (int64_t i = 0; i < kPositions * half; ++i) {
    cos.set(i, std::cos(0.37 * static_cast<double>(i)));
    sin.set(i, std::sin(0.37 * static_cast<double>(i)));
  }
  std::vector<int64_t> positions;
  for (int64_t t = 0; t < c.tokens; ++t) positions.push_back((t * 5 + 2) % kPositions);

  std::vector<double> want;
  for (int64_t i = 0; i < y.size(); ++i) want.push_back(y[i]);
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t h = 0; h < c.heads; ++h) {
      const int64_t from = t * x_stride + h * x_head_stride, to = t * y_stride + h * c.head_dim;
      for (int64_t i = 0; i < c.head_dim; ++i) want[static_cast<size_t>(to + i)] = x[from + i];
      for (int64_t i = 0; i < half; ++i) {
        const int64_t angle = positions[static_cast<size_t>(t)] * half + i;
        const int64_t first = c.offset + (c.interleaved ? 2 * i : i);
        const int64_t second = c.offset + (c.interleaved ? 2 * i + 1 : half + i);
        const double s = c.inverse ? -sin[angle] : sin[angle];
        const double a = x[from + first], b = x[from + second];
        want[static_cast<size_t>(to + first)] = a * cos[angle] - b * s;
        want[static_cast<size_t>(to + second)] = b * cos[angle] + a * s;
      }
    }
  }
  cpu_kernels().rotary({.dtype = dtype,
                        .tokens = c.tokens,
                        .heads = c.heads,
                        .head_dim = c.head_dim,
                        .rotary_dim = c.rotary_dim,
                        .offset = c.offset,
                        .interleaved = c.interleaved,
                        .x = c.in_place ? y.data() : x.data(),
                        .x_stride = x_stride,
                        .x_head_stride = x_head_stride,
                        .y = y.data(),
                        .y_stride = y_stride,
                        .cos = static_cast<const float*>(cos.data()),
                        .sin = static_cast<const float*>(sin.data()),
                        .positions = positions.data(),
                        .inverse = c.inverse},
                       nullptr);
  expect_close(y, want, dtype, 1.0, 5e-7);
}

TEST(RotaryKernel, matches_double_precision) {
  on_every_target([] {
    for (const Case& c : kCases) {
      for (const Dtype dtype : kDtypes) check(c, dtype);
    }
  });
}

}  // namespace
}  // namespace qianli::ops::testing
