// One call of the attention kernels: what the functions around them share.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include "qianli/ops/attention.h"
#include "qianli/ops/kernels.h"
#include "qianli/ops/parameter.h"

namespace qianli::ops {

// Kept for the backward pass. Tensors that the kernels read as float32 and int64 on q's device.
struct AttentionCall : torch::CustomClassHolder {
  AttentionLayout layout;
  Parameter* sinks = nullptr;
  at::Tensor slopes, sink_values, chosen;

  AttentionCall(AttentionLayout given, Parameter* sinks_given, at::Device device);
  bool sinks_trainable() const { return sinks && sinks->trainable(); }
};

// Our kernels, also where LibTorch's come first: the caller has seen that those do not serve. Null:
// the reference has to.
const KernelTable* attention_kernels(const at::Tensor& q, const at::Tensor& v);

// out: [Tq, heads, Dv] contiguous; lse: [heads, Tq] float32 or undefined; q, k, v: last axis
// contiguous. The result refers to all of them.
AttentionForward forward_call(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const at::Tensor& out, const at::Tensor& lse,
                              const AttentionCall& call);

inline at::Tensor with_whole_heads(const at::Tensor& x) {
  return x.stride(2) == 1 ? x : x.contiguous();
}

}  // namespace qianli::ops
