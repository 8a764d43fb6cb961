// Random numbers as an activation that stands where its elements do, whatever the layout: functions
// of a key, a row's origin and a column, like those of dropout.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace qianli::ops {

// Uniform in [-1, 1), [rows, count], of the columns from `first` on; origins: [rows] int64, whose
// device the result has; float64. They are drawn on the host.
at::Tensor uniform_noise(uint64_t key, const at::Tensor& origins, int64_t first, int64_t count);

}  // namespace qianli::ops
