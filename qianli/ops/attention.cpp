#include "qianli/ops/attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

#include "qianli/ops/cuda/flash_attention.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows that are contiguous inside (heads, D); the row stride is free.
at::Tensor with_whole_rows(const at::Tensor& x) {
  return x.stride(2) == 1 && x.stride(1) == x.size(2) ? x : x.contiguous();
}

struct LayoutHolder : torch::CustomClassHolder {
  explicit LayoutHolder(AttentionLayout given) : layout(std::move(given)) {}
  AttentionLayout layout;
};

AttentionForward forward_call(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& out,
                              const at::Tensor& lse, const AttentionLayout& layout) {
  return {.dtype = kernel_dtype(q),
          .sequences = static_cast<int64_t>(layout.q_starts.size()) - 1,
          .q_starts = layout.q_starts.data(),
          .k_starts = layout.k_starts.data(),
          .query_heads = q.size(1),
          .key_heads = k.size(1),
          .head_dim = q.size(2),
          .scale = layout.scale,
          .causal = layout.causal,
          .window = layout.window,
          .q = q.data_ptr(),
          .k = k.data_ptr(),
          .v = v.data_ptr(),
          .q_stride = q.stride(0),
          .k_stride = k.stride(0),
          .v_stride = v.stride(0),
          .out = out.data_ptr(),
          .lse = lse.defined() ? lse.data_ptr<float>() : nullptr};
}

class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_given, const at::Tensor& k_given,
                            const at::Tensor& v_given, const c10::intrusive_ptr<LayoutHolder>& holder, bool record) {
    const at::Tensor q = with_whole_rows(q_given), k = with_whole_rows(k_given), v = with_whole_rows(v_given);
    at::Tensor out = at::empty(q.sizes(), q.options());
    at::Tensor lse = record ? at::empty({q.size(1), q.size(0)}, q.options().dtype(at::kFloat)) : at::Tensor();
    kernels_for(Op::kAttention, q)->attention_forward(forward_call(q, k, v, out, lse, holder->layout), stream_of(q));
    if (record) {
      context->save_for_backward({q, k, v, out, lse});
      context->saved_data["layout"] = c10::IValue::make_capsule(holder);
    }
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const auto holder = c10::static_intrusive_pointer_cast<LayoutHolder>(context->saved_data["layout"].toCapsule());
    const at::Tensor grad_out = grads[0].contiguous();
    at::Tensor grad_q = at::empty(q.sizes(), q.options());
    at::Tensor grad_k = at::empty(k.sizes(), k.options());
    at::Tensor grad_v = at::empty(v.sizes(), v.options());
    kernels_for(Op::kAttention, q)
        ->attention_backward({.forward = forward_call(q, k, v, saved[3], saved[4], holder->layout),
                              .grad_out = grad_out.data_ptr(),
                              .grad_q = grad_q.data_ptr(),
                              .grad_k = grad_k.data_ptr(),
                              .grad_v = grad_v.data_ptr(),
                              .grad_q_stride = grad_q.stride(0),
                              .grad_k_stride = grad_k.stride(0),
                              .grad_v_stride = grad_v.stride(0)},
                             stream_of(q));
    return {grad_q, grad_k, grad_v, {}, {}};
  }
};

// [Sq, Sk] bool: which keys a query sees.
at::Tensor visible(int64_t q_length, int64_t k_length, const AttentionLayout& layout, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  const at::Tensor distance = at::arange(q_length, options).unsqueeze(1) + (k_length - q_length) -
                              at::arange(k_length, options).unsqueeze(0);
  at::Tensor mask = layout.causal ? distance >= 0 : distance == distance;
  if (layout.window > 0) mask = mask & (distance < layout.window);
  return mask;
}

// LibTorch's fused kernels, batched when every sequence has the same length, else one by one.
at::Tensor torch_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionLayout& layout) {
  const auto attend = [&](const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values) {
    const int64_t q_length = queries.size(1), k_length = keys.size(1);
    const bool plain = layout.window == 0 && (!layout.causal || q_length == k_length);
    const std::optional<at::Tensor> mask =
        plain || (q_length == 1 && layout.window == 0)
            ? std::nullopt
            : std::optional(visible(q_length, k_length, layout, q.device()));
    return at::scaled_dot_product_attention(queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2),
                                            mask, 0.0, plain && layout.causal && q_length > 1, layout.scale,
                                            q.size(1) != k.size(1))
        .transpose(1, 2)
        .reshape({-1, q.size(1), q.size(2)});
  };
  const auto sequences = static_cast<int64_t>(layout.q_starts.size()) - 1;
  bool equal = true;
  for (int64_t s = 0; s < sequences; ++s) {
    equal = equal && layout.q_starts[s + 1] - layout.q_starts[s] == layout.q_starts[1] &&
            layout.k_starts[s + 1] - layout.k_starts[s] == layout.k_starts[1];
  }
  const auto batched = [&](const at::Tensor& x) { return x.unflatten(0, {sequences, x.size(0) / sequences}); };
  if (equal && sequences > 0) return attend(batched(q), batched(k), batched(v));
  std::vector<at::Tensor> parts;
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t q_begin = layout.q_starts[s], k_begin = layout.k_starts[s];
    const int64_t q_rows = layout.q_starts[s + 1] - q_begin, k_rows = layout.k_starts[s + 1] - k_begin;
    parts.push_back(attend(q.narrow(0, q_begin, q_rows).unsqueeze(0), k.narrow(0, k_begin, k_rows).unsqueeze(0),
                           v.narrow(0, k_begin, k_rows).unsqueeze(0)));
  }
  return at::cat(parts, 0);
}

}  // namespace

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionLayout& layout) {
  if (kernels_for(Op::kAttention, q)) {
    const bool record =
        at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
    return AttentionFunction::apply(q, k, v, c10::make_intrusive<LayoutHolder>(layout), record);
  }
  if (use_torch(Op::kAttention, q)) {
    return cuda::flash_attention_serves(q) ? cuda::flash_attention(q, k, v, layout) : torch_attention(q, k, v, layout);
  }
  return apply_reference(
      [layout](const Tensors& inputs, const Tensors&) {
        return Tensors{reference::attention(inputs[0], inputs[1], inputs[2], layout)};
      },
      {q, k, v}, {})[0];
}

namespace reference {

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionLayout& layout) {
  const int64_t repeats = q.size(1) / k.size(1);
  std::vector<at::Tensor> parts;
  for (size_t s = 0; s + 1 < layout.q_starts.size(); ++s) {
    const int64_t q_rows = layout.q_starts[s + 1] - layout.q_starts[s];
    const int64_t k_rows = layout.k_starts[s + 1] - layout.k_starts[s];
    const at::Tensor qs = q.narrow(0, layout.q_starts[s], q_rows).transpose(0, 1);
    const at::Tensor ks = k.narrow(0, layout.k_starts[s], k_rows).transpose(0, 1).repeat_interleave(repeats, 0);
    const at::Tensor vs = v.narrow(0, layout.k_starts[s], k_rows).transpose(0, 1).repeat_interleave(repeats, 0);
    const at::Tensor hidden = visible(q_rows, k_rows, layout, q.device()).logical_not();
    const at::ScalarType wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor scores = qs.matmul(ks.transpose(1, 2)).to(wide) * layout.scale;
    const at::Tensor weights = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(-1);
    parts.push_back(weights.to(q.scalar_type()).matmul(vs).transpose(0, 1));
  }
  return at::cat(parts, 0);
}

}  // namespace reference

}  // namespace qianli::ops
