// Rotary position embedding (Su et al. 2021): pairs of dimensions of every head turn by an angle
// that grows with the position.
#pragma once

#include <ATen/core/Tensor.h>

namespace qianli::ops {

// Cosines and sines of every position, float32 (float64 for float64 models): [positions, r/2].
struct RotaryTable {
  at::Tensor cos;
  at::Tensor sin;
};

// Which dimensions of a head turn: r of them from `offset` on, the others pass through. r comes
// from the table.
struct RotaryPairs {
  bool interleaved = false;  // (2i, 2i + 1) instead of (i, i + r/2)
  int64_t offset = 0;        // MLA: the dimensions behind the part without positions
};

// x: [T, heads, D], last axis contiguous, rows and heads anywhere (the slice of a fused
// projection); positions: [T] int64 below the table's length. Returns all of x, contiguous.
at::Tensor rotary(const at::Tensor& x, const RotaryTable& table, const at::Tensor& positions,
                  const RotaryPairs& pairs = {});

namespace reference {
at::Tensor rotary(const at::Tensor& x, const RotaryTable& table, const at::Tensor& positions,
                  const RotaryPairs& pairs = {});
}

}  // namespace qianli::ops
