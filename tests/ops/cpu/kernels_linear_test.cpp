#include <cmath>

#include "kernels_support.h"

namespace qianli::ops::testing {
namespace {

struct Case {
  int64_t rows, in, out;
  bool bias;
};
constexpr Case kCases[] = {{1, 1, 1, false},     {1, 33, 7, true},   {2, 64, 5, false},
                           {3, 100, 9, true},    {4, 17, 6, true},   {1, 300, 900, true},
                           {4, 300, 901, false}, {5, 40, 50, true},  {8, 131, 49, false},
                           {15, 70, 100, true},  {16, 33, 97, false}};

std::vector<double> expected(const Case& c, const Array& x, const Array& weight,
                             const Array& bias) {
  std::vector<double> y;
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t o = 0; o < c.out; ++o) {
      double sum = c.bias ? bias[o] : 0.0;
      for (int64_t i = 0; i < c.in; ++i) sum += x[r * c.in + i] * weight[o * c.in + i];
      y.push_back(sum);
    }
  }
  return y;
}

Array run(const Case& c, Dtype dtype, Array& x, Array& weight, Array& bias) {
  Array y(dtype, c.rows * c.out);
  cpu_kernels().linear_few_rows({.dtype = dtype,
                                 .rows = c.rows,
                                 .in = c.in,
                                 .out = c.out,
                                 .x = x.data(),
                                 .weight = weight.data(),
                                 .bias = c.bias ? bias.data() : nullptr,
                                 .y = y.data()},
                                nullptr);
  return y;
}

TEST(LinearKernels, few_rows_equal_the_definition) {
  on_every_target([] {
    for (const Case& c : kCases) {
      for (const Dtype dtype : kDtypes) {
        Array x = random_array(dtype, c.rows * c.in, 1),
              weight = random_array(dtype, c.out * c.in, 2);
        Array bias = random_array(dtype, c.out, 3);
        const Array y = run(c, dtype, x, weight, bias);
        expect_close(y, expected(c, x, weight, bias), dtype, std::sqrt(static_cast<double>(c.in)));
        EXPECT_TRUE(y.guards_untouched());
      }
    }
  });
}

// A token's values must not depend on how many others are decoded beside it.
TEST(LinearKernels, a_row_is_the_same_alone_and_among_others) {
  on_every_target([] {
    const Case together{15, 131, 77, true}, alone{1, 131, 77, true};
    Array x = random_array(Dtype::kFloat32, 15 * 131, 1),
          weight = random_array(Dtype::kFloat32, 77 * 131, 2);
    Array bias = random_array(Dtype::kFloat32, 77, 3), one(Dtype::kFloat32, 131);
    const Array all = run(together, Dtype::kFloat32, x, weight, bias);
    for (int64_t r = 0; r < 15; ++r) {
      for (int64_t i = 0; i < 131; ++i) one.set(i, x[r * 131 + i]);
      const Array y = run(alone, Dtype::kFloat32, one, weight, bias);
      for (int64_t o = 0; o < 77; ++o) ASSERT_EQ(y[o], all[r * 77 + o]) << r << ", " << o;
    }
  });
}

}  // namespace
}  // namespace qianli::ops::testing
