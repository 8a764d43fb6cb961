#include "qianli/ops/attention_call.h"

#include <algorithm>

#include "qianli/ops/dispatch.h"

namespace qianli::ops {
namespace {

const float* float_data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr<float>() : nullptr;
}

}  // namespace

AttentionCall::AttentionCall(AttentionLayout given, Parameter* sinks_given, at::Device device)
    : layout(std::move(given)), sinks(sinks_given) {
  if (layout.slopes.defined()) slopes = layout.slopes.to(device, at::kFloat).contiguous();
  if (sinks) sink_values = sinks->value().to(device, at::kFloat).contiguous();
  if (layout.chosen.defined()) chosen = layout.chosen.to(device, at::kLong).contiguous();
}

const KernelTable* attention_kernels(const at::Tensor& q, const at::Tensor& v) {
  if (q.is_cuda() && std::max(q.size(2), v.size(2)) > kMostCudaHeadDim) return nullptr;
  const KernelTable* kernels = kernels_for(Op::kAttention, q);
  return kernels ? kernels : kernels_beside_torch(Op::kAttention, q);
}

AttentionForward forward_call(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const at::Tensor& out, const at::Tensor& lse,
                              const AttentionCall& call) {
  const AttentionLayout& layout = call.layout;
  return {.dtype = kernel_dtype(q),
          .sequences = layout.sequences(),
          .q_starts = layout.q_starts.data(),
          .k_starts = layout.k_starts.data(),
          .offsets = layout.offsets.empty() ? nullptr : layout.offsets.data(),
          .query_heads = q.size(1),
          .key_heads = k.size(1),
          .head_dim = q.size(2),
          .value_dim = v.size(2),
          .scale = layout.scale,
          .softcap = layout.softcap,
          .causal = layout.causal,
          .window = layout.window,
          .slopes = float_data(call.slopes),
          .sinks = float_data(call.sink_values),
          .chosen = call.chosen.defined() ? call.chosen.data_ptr<int64_t>() : nullptr,
          .chosen_count = call.chosen.defined() ? call.chosen.size(1) : 0,
          .dropout = layout.dropout,
          .origins = layout.dropout.threshold > 0 ? layout.origins.data() : nullptr,
          .first_head = layout.first_head,
          .q = q.data_ptr(),
          .k = k.data_ptr(),
          .v = v.data_ptr(),
          .q_stride = q.stride(0),
          .k_stride = k.stride(0),
          .v_stride = v.stride(0),
          .q_head_stride = q.stride(1),
          .k_head_stride = k.stride(1),
          .v_head_stride = v.stride(1),
          .out = out.data_ptr(),
          .lse = lse.defined() ? lse.data_ptr<float>() : nullptr};
}

}  // namespace qianli::ops
