// Dropout whose elements are a function of where they stand in the undivided activation
// (kernels.h): every layout, a second forward pass and a resumed run drop the same ones, and no
// state of a generator needs to be kept anywhere.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/kernels.h"

namespace qianli::ops {

// Drops with probability `rate` in [0, 1), which is rounded to a multiple of 2^-16 but not to 0;
// what stays is scaled so that the mean is unchanged. Different keys drop independently.
Dropout dropout_of(double rate, uint64_t key);

// x: [rows, width]; origins: [rows] int64 on x's device.
at::Tensor dropout(const at::Tensor& x, const Dropout& dropout, const at::Tensor& origins);

namespace reference {
// Factors, 0 or dropout.scale, [heads, rows, count], of the elements from `first` on along the last
// axis; origins: [rows], whose device the result has. `first_head` is the last word of the counter
// of the first head.
at::Tensor dropout_factors(const Dropout& dropout, const at::Tensor& origins, int64_t first,
                           int64_t count, int64_t first_head, int64_t heads, at::ScalarType dtype);
at::Tensor dropout(const at::Tensor& x, const Dropout& dropout, const at::Tensor& origins);
}  // namespace reference

}  // namespace qianli::ops
