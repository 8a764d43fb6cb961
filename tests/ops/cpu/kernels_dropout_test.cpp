#include "kernels_support.h"
#include "tests/ops/dropout_mask.h"

namespace qianli::ops::testing {
namespace {

TEST(DropoutKernel, drops_what_the_generator_says) {
  const Dropout dropout{.key = 0xfedcba9876543210, .threshold = 20000, .scale = 1.5};
  const std::vector<int64_t> origins = {int64_t{7} << 32 | 5, 6, int64_t{1} << 40};
  const auto rows = static_cast<int64_t>(origins.size());
  for (const Dtype dtype : kDtypes) {
    for (const int64_t width : {1, 8, 13, 48, 1032, 9001}) {
      Array x = random_array(dtype, rows * width, 1);
      std::vector<double> expected;
      for (int64_t i = 0; i < rows * width; ++i) {
        const auto origin = static_cast<uint64_t>(origins[static_cast<size_t>(i / width)]);
        const bool stays =
            qianli::testing::stays(dropout, origin, static_cast<uint64_t>(i % width), 0);
        expected.push_back(stays ? dropout.scale * x[i] : 0.0);
      }
      on_every_target([&] {
        Array y(dtype, rows * width);
        cpu_kernels().dropout({.dtype = dtype,
                               .rows = rows,
                               .width = width,
                               .dropout = dropout,
                               .origins = origins.data(),
                               .x = x.data(),
                               .y = y.data()},
                              nullptr);
        expect_close(y, expected, dtype, 0.0, 1e-7);
      });
    }
  }
}

}  // namespace
}  // namespace qianli::ops::testing
