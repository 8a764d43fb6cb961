// Helpers for tests that hold tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

namespace qianli::testing {

// Largest |a - b| divided by the largest |b| (1 where b is all zero).
double relative_error(const at::Tensor& actual, const at::Tensor& expected);

// Fails the running test when relative_error exceeds `tolerance`, printing shape, the first bad
// index and the largest error.
void expect_close(const at::Tensor& actual, const at::Tensor& expected, double tolerance,
                  const std::string& what = {});

}  // namespace qianli::testing
