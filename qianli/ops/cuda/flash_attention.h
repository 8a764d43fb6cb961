// Packed attention on CUDA by the FlashAttention-2 kernels that come with LibTorch: one call for
// all sequences, causal masks aligned at the end, windows and shared key heads inside the kernel.
// Reached through LibTorch's dispatcher, so this file needs neither CUDA headers nor
// libqianli_cuda.so.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "qianli/ops/attention.h"

namespace qianli::ops::cuda {

// float16 or bfloat16 on a CUDA device of compute capability 8.0 or more, head size a multiple of 8
// up to 256, values no longer than that; no offsets, no softcap, no slopes, no
// chosen keys.
bool flash_attention_serves(const at::Tensor& q, const at::Tensor& v,
                            const AttentionLayout& layout);

// As ops::attention, differentiable. Rows of q, k and v may be apart (views of a fused projection).
at::Tensor flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionLayout& layout, Parameter* sinks = nullptr);

// The kernel's own words for a layout, shared by forward and backward.
struct FlashArguments {
  int64_t max_q, max_k;  // upper bounds of the lengths
  std::optional<int64_t> window_left,
      window_right;  // keys seen to each side of the diagonal; none: all
};
FlashArguments flash_arguments(const AttentionLayout& layout);

}  // namespace qianli::ops::cuda
