// Rotary position embedding, half style: dimension i turns with dimension i + r/2 (Su et al. 2021).
#pragma once

#include <ATen/core/Tensor.h>

namespace qianli::ops {

// Cosines and sines of every position, float32 (float64 for float64 models): [positions, r/2].
struct RotaryTable {
  at::Tensor cos;
  at::Tensor sin;
};

// x: [T, heads, D], last two axes contiguous; positions: [T] int64 below the table's length. The first
// 2 * table.cos.size(1) dimensions of every head are rotated, the others pass through.
at::Tensor rotary(const at::Tensor& x, const RotaryTable& table, const at::Tensor& positions);

namespace reference {
at::Tensor rotary(const at::Tensor& x, const RotaryTable& table, const at::Tensor& positions);
}

}  // namespace qianli::ops
