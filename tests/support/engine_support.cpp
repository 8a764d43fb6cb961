#include "tests/support/engine_support.h"

#include <gtest/gtest.h>

namespace qianli::testing {

double relative_error(const at::Tensor& actual, const at::Tensor& expected) {
  if (expected.numel() == 0) return 0.0;
  const auto a = actual.to(at::kDouble), b = expected.to(at::kDouble);
  const double scale = b.abs().max().item<double>();
  const double error = (a - b).abs().max().item<double>();
  // A NaN compares false with everything, so it must not pass as "small".
  if (!std::isfinite(error)) return std::numeric_limits<double>::infinity();
  return error / (scale > 0 ? scale : 1.0);
}

void expect_close(const at::Tensor& actual, const at::Tensor& expected, double tolerance,
                  const std::string& what) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  const double error = relative_error(actual, expected);
  if (error <= tolerance) return;
  const auto difference = (actual.to(at::kDouble) - expected.to(at::kDouble)).abs().flatten();
  const int64_t worst = difference.argmax().item<int64_t>();
  ADD_FAILURE() << what << ": relative error " << error << " exceeds " << tolerance << "; shape "
                << expected.sizes() << ", worst flat index " << worst << ": "
                << actual.flatten()[worst].item<double>() << " instead of "
                << expected.flatten()[worst].item<double>();
}

}  // namespace qianli::testing
