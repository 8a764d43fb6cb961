// Weights that are computed with in few bits (inference): blocks of 32 numbers as in GGML's Q8_0
// and Q4_0, read as they are by a kernel of ours (ops/cpu/block_linear.h). As the value of a
// parameter such a weight is an opaque tensor of its shape: `linear`, `grouped_linear` and
// `embedding` know it, and any other op refuses it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "qianli/ops/cpu/block_linear.h"

namespace qianli::ops {

class BlockWeight {
 public:
  // values: float32 [out, in] or [groups, out, in], on the CPU.
  BlockWeight(const at::Tensor& values, cpu::BlockCode code);
  BlockWeight(const BlockWeight&) = delete;
  BlockWeight& operator=(const BlockWeight&) = delete;

  uint64_t bytes() const { return data_.nbytes(); }

  // x W^T + b of a group's matrix. x: [T, in], float32 or bfloat16 (there rounded to whole numbers
  // of 8 bits in blocks), or float64; bias: [out], of x's type, or undefined.
  at::Tensor linear(const at::Tensor& x, const at::Tensor& bias, int64_t group = 0) const;
  // Of these rows of the first group: [ids, in]. ids: int64 on the CPU.
  at::Tensor rows(const at::Tensor& ids, at::ScalarType dtype) const;
  // All of them: of its shape.
  at::Tensor numbers(at::ScalarType dtype) const;

 private:
  cpu::BlockMatrix matrix(int64_t group) const;
  void read_row(int64_t group, int64_t row, float* values) const;

  std::vector<int64_t> shape_;
  cpu::BlockCode code_;
  int64_t groups_, out_, in_;
  at::Tensor data_;  // uint8
};

// The weight as a parameter's value: of this type, as far as anyone asks.
at::Tensor as_value(std::shared_ptr<const BlockWeight> weight, at::IntArrayRef shape,
                    at::ScalarType dtype);
// Null: it is a tensor like others.
const BlockWeight* block_weight(const at::Tensor& value);
// x W^T + b of a weight [out, in] of either kind, without a graph.
at::Tensor product_nt(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace qianli::ops
