#include "tests/ops/cuda/array.h"
#include "tests/ops/dropout_mask.h"

namespace qianli::testing {
namespace {

using CudaDropout = CudaKernels;

TEST_F(CudaDropout, drops_what_the_generator_says) {
  const ops::Dropout dropout{.key = 0xfedcba9876543210, .threshold = 20000, .scale = 1.5};
  const std::vector<int64_t> where = {int64_t{7} << 32 | 5, 6, int64_t{1} << 40};
  const Integers origins(where);
  for (const Dtype dtype : kDtypes) {
    for (const int64_t width : {1, 8, 13, 48, 1032}) {
      const int64_t rows = static_cast<int64_t>(where.size());
      const Array x(dtype, random_numbers(rows * width, 1)), y(dtype, zeros(rows * width));
      std::vector<double> expected;
      for (int64_t i = 0; i < rows * width; ++i) {
        const bool kept = stays(dropout, static_cast<uint64_t>(where[i / width]),
                                static_cast<uint64_t>(i % width), 0);
        expected.push_back(kept ? dropout.scale * x.values()[i] : 0.0);
      }
      kernels()->dropout({.dtype = dtype,
                          .rows = rows,
                          .width = width,
                          .dropout = dropout,
                          .origins = origins.data(),
                          .x = x.data(),
                          .y = y.data()},
                         stream());
      expect_near(y, expected, tolerance(dtype), "width " + std::to_string(width));
    }
  }
}

}  // namespace
}  // namespace qianli::testing
