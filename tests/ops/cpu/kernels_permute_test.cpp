#include <cmath>

#include "kernels_support.h"

namespace qianli::ops::testing {
namespace {

// Five tokens with three choices each; token 2 lost one, token 4 all of them; row 3 belongs to
// none.
constexpr int64_t kTokens = 5, kSlots = 3, kRowCount = 12;
const std::vector<int64_t> kRows = {4, 0, 9, 1, 5, 10, -1, 2, 6, 7, 11, 8, -1, -1, -1};

Array weights_for_choices() {
  Array weights = random_array(Dtype::kFloat32, kTokens * kSlots, 3);
  return weights;
}

TEST(PermuteKernels, gathers_rows_by_token) {
  on_every_target([] {
    for (const Dtype dtype : kDtypes) {
      const std::vector<int64_t> tokens = {3, 0, 3, 1};
      const int64_t width = 37;
      Array x = random_array(dtype, kTokens * width, 1), y(dtype, 4 * width);
      cpu_kernels().gather_rows({.dtype = dtype,
                                 .rows = 4,
                                 .width = width,
                                 .tokens = tokens.data(),
                                 .x = x.data(),
                                 .y = y.data()},
                                nullptr);
      for (int64_t r = 0; r < 4; ++r) {
        for (int64_t i = 0; i < width; ++i) {
          ASSERT_EQ(y[r * width + i], x[tokens[r] * width + i]) << r << ", " << i;
        }
      }
      EXPECT_TRUE(y.guards_untouched());
    }
  });
}

TEST(PermuteKernels, combines_the_rows_of_a_token) {
  on_every_target([] {
    for (const int64_t width : {1, 19, 64, 300}) {
      for (const Dtype dtype : kDtypes) {
        for (const bool weighted : {false, true}) {
          Array x = random_array(dtype, kRowCount * width, 1), weights = weights_for_choices();
          std::vector<double> expected(kTokens * width);
          for (int64_t choice = 0; choice < kTokens * kSlots; ++choice) {
            if (kRows[choice] < 0) continue;
            for (int64_t i = 0; i < width; ++i) {
              expected[choice / kSlots * width + i] +=
                  (weighted ? weights[choice] : 1.0) * x[kRows[choice] * width + i];
            }
          }
          Array y(dtype, kTokens * width);
          cpu_kernels().combine_rows(
              {.dtype = dtype,
               .tokens = kTokens,
               .slots = kSlots,
               .width = width,
               .rows = kRows.data(),
               .weights = weighted ? static_cast<float*>(weights.data()) : nullptr,
               .x = x.data(),
               .y = y.data()},
              nullptr);
          expect_close(y, expected, dtype, 2.0);
          EXPECT_TRUE(y.guards_untouched());
        }
      }
    }
  });
}

TEST(PermuteKernels, gradients_of_combining_equal_the_definition) {
  on_every_target([] {
    for (const int64_t width : {1, 19, 64, 300}) {
      for (const Dtype dtype : kDtypes) {
        Array x = random_array(dtype, kRowCount * width, 1), weights = weights_for_choices();
        Array grad_y = random_array(dtype, kTokens * width, 2);
        Array grad_x(dtype, kRowCount * width), grad_weights(Dtype::kFloat32, kTokens * kSlots);
        for (int64_t i = 0; i < grad_x.size(); ++i) grad_x.set(i, 7.0);
        std::vector<double> expected_x(kRowCount * width, 7.0), expected_weights(kTokens * kSlots);
        for (int64_t choice = 0; choice < kTokens * kSlots; ++choice) {
          if (kRows[choice] < 0) continue;
          for (int64_t i = 0; i < width; ++i) {
            const double grad = grad_y[choice / kSlots * width + i];
            expected_x[kRows[choice] * width + i] = weights[choice] * grad;
            expected_weights[choice] += grad * x[kRows[choice] * width + i];
          }
        }
        cpu_kernels().combine_rows_backward(
            {.forward = {.dtype = dtype,
                         .tokens = kTokens,
                         .slots = kSlots,
                         .width = width,
                         .rows = kRows.data(),
                         .weights = static_cast<float*>(weights.data()),
                         .x = x.data(),
                         .y = nullptr},
             .grad_y = grad_y.data(),
             .grad_x = grad_x.data(),
             .grad_weights = static_cast<float*>(grad_weights.data())},
            nullptr);
        expect_close(grad_x, expected_x, dtype, 1.0);
        expect_close(grad_weights, expected_weights, Dtype::kFloat32,
                     std::sqrt(static_cast<double>(width)));
        EXPECT_TRUE(grad_x.guards_untouched() && grad_weights.guards_untouched());
      }
    }
  });
}

}  // namespace
}  // namespace qianli::ops::testing
