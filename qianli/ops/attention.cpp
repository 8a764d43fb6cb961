#include "qianli/ops/attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "qianli/ops/attention_call.h"
#include "qianli/ops/cuda/flash_attention.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_given,
                            const at::Tensor& k_given, const at::Tensor& v_given, const at::Tensor&,
                            const c10::intrusive_ptr<AttentionCall>& call, bool record) {
    const at::Tensor q = with_whole_heads(q_given), k = with_whole_heads(k_given),
                     v = with_whole_heads(v_given);
    at::Tensor out = at::empty({q.size(0), q.size(1), v.size(2)}, q.options());
    at::Tensor lse =
        record ? at::empty({q.size(1), q.size(0)}, q.options().dtype(at::kFloat)) : at::Tensor();
    attention_kernels(q, v)->attention_forward(forward_call(q, k, v, out, lse, *call),
                                               stream_of(q));
    if (record) {
      context->save_for_backward({q, k, v, out, lse});
      context->saved_data["call"] = c10::IValue::make_capsule(call);
    }
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const auto call =
        c10::static_intrusive_pointer_cast<AttentionCall>(context->saved_data["call"].toCapsule());
    const at::Tensor grad_out = grads[0].contiguous();
    at::Tensor grad_q = at::empty(q.sizes(), q.options());
    at::Tensor grad_k = at::empty(k.sizes(), k.options());
    at::Tensor grad_v = at::empty(v.sizes(), v.options());
    attention_kernels(q, v)->attention_backward(
        {.forward = forward_call(q, k, v, saved[3], saved[4], *call),
         .grad_out = grad_out.data_ptr(),
         .grad_q = grad_q.data_ptr(),
         .grad_k = grad_k.data_ptr(),
         .grad_v = grad_v.data_ptr(),
         .grad_q_stride = grad_q.stride(0),
         .grad_k_stride = grad_k.stride(0),
         .grad_v_stride = grad_v.stride(0),
         .grad_sinks =
             call->sinks_trainable() ? call->sinks->grad_to_add().data_ptr<float>() : nullptr},
        stream_of(q));
    return {grad_q, grad_k, grad_v, {}, {}, {}};
  }
};

// LibTorch's fused kernels, batched when every sequence has the same length, else one by one.
at::Tensor torch_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionLayout& layout) {
  // Of sequence s, or of all where they are alike.
  const auto attend = [&](size_t s, const at::Tensor& queries, const at::Tensor& keys,
                          const at::Tensor& values) {
    const int64_t q_length = queries.size(1), k_length = keys.size(1);
    const bool plain = layout.window == 0 && (!layout.causal || q_length == k_length);
    const std::optional<at::Tensor> mask =
        plain || (q_length == 1 && layout.window == 0)
            ? std::nullopt
            : std::optional(reference::visible_keys(layout, s, q.device()));
    return at::scaled_dot_product_attention(
               queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), mask, 0.0,
               plain && layout.causal && q_length > 1, layout.scale, q.size(1) != k.size(1))
        .transpose(1, 2)
        .reshape({-1, q.size(1), v.size(2)});
  };
  const int64_t sequences = layout.sequences();
  bool equal = true;
  for (int64_t s = 0; s < sequences; ++s) {
    equal = equal && layout.q_starts[s + 1] - layout.q_starts[s] == layout.q_starts[1] &&
            layout.k_starts[s + 1] - layout.k_starts[s] == layout.k_starts[1];
  }
  const auto batched = [&](const at::Tensor& x) {
    return x.unflatten(0, {sequences, x.size(0) / sequences});
  };
  if (equal && sequences > 0) return attend(0, batched(q), batched(k), batched(v));
  std::vector<at::Tensor> parts;
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t q_begin = layout.q_starts[s], k_begin = layout.k_starts[s];
    const int64_t q_rows = layout.q_starts[s + 1] - q_begin,
                  k_rows = layout.k_starts[s + 1] - k_begin;
    parts.push_back(attend(static_cast<size_t>(s), q.narrow(0, q_begin, q_rows).unsqueeze(0),
                           k.narrow(0, k_begin, k_rows).unsqueeze(0),
                           v.narrow(0, k_begin, k_rows).unsqueeze(0)));
  }
  return at::cat(parts, 0);
}

void check_shapes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttentionLayout& layout, const at::Tensor& sinks) {
  TORCH_CHECK(
      q.dim() == 3 && k.dim() == 3 && v.dim() == 3 && q.size(2) == k.size(2) &&
          k.size(0) == v.size(0) && k.size(1) == v.size(1) && q.size(1) % k.size(1) == 0,
      "[attention] expected q [Tq, heads, D], k [Tk, key heads, D] and v [Tk, key heads, Dv], got ",
      q.sizes(), ", ", k.sizes(), " and ", v.sizes());
  TORCH_CHECK(layout.q_starts.size() == layout.k_starts.size() && !layout.q_starts.empty() &&
                  layout.q_starts.back() == q.size(0) && layout.k_starts.back() == k.size(0),
              "[attention] expected starts that end at ", q.size(0), " queries and ", k.size(0),
              " keys");
  TORCH_CHECK(
      layout.offsets.empty() || static_cast<int64_t>(layout.offsets.size()) == layout.sequences(),
      "[attention] expected one offset per sequence");
  TORCH_CHECK(layout.dropout.threshold == 0 ||
                  static_cast<int64_t>(layout.origins.size()) == layout.sequences(),
              "[attention] expected an origin of each sequence with dropout");
  TORCH_CHECK(!layout.slopes.defined() || layout.slopes.sizes() == at::IntArrayRef{q.size(1)},
              "[attention] expected one slope per head");
  TORCH_CHECK(!sinks.defined() || sinks.sizes() == at::IntArrayRef{q.size(1)},
              "[attention] expected one sink per head");
  TORCH_CHECK(
      !layout.chosen.defined() || (layout.chosen.dim() == 2 && layout.chosen.size(0) == q.size(0)),
      "[attention] expected one row of chosen keys per query");
}

// What every fused kernel offers.
bool is_plain(const AttentionLayout& layout, const Parameter* sinks) {
  return layout.softcap == 0.0 && layout.offsets.empty() && layout.dropout.threshold == 0 &&
         !layout.slopes.defined() && !layout.chosen.defined() && !sinks;
}

at::Tensor reference_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const AttentionLayout& layout, Parameter* sinks) {
  const auto formula = [layout](const Tensors& inputs, const Tensors& weights) {
    return Tensors{reference::attention(inputs[0], inputs[1], inputs[2], layout,
                                        weights.empty() ? at::Tensor() : weights[0])};
  };
  return apply_reference(formula, {q, k, v},
                         sinks ? std::vector<Parameter*>{sinks} : std::vector<Parameter*>{})[0];
}

}  // namespace

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionLayout& layout, Parameter* sinks) {
  check_shapes(q, k, v, layout, sinks ? sinks->value() : at::Tensor());
  if (use_torch(Op::kAttention, q)) {
    if (cuda::flash_attention_serves(q, v, layout))
      return cuda::flash_attention(q, k, v, layout, sinks);
    if (is_plain(layout, sinks)) return torch_attention(q, k, v, layout);
  }
  if (attention_kernels(q, v)) {
    auto call = c10::make_intrusive<AttentionCall>(layout, sinks, q.device());
    const at::Tensor anchor =
        call->sinks_trainable() ? gradient_anchor() : gradient_anchor().detach();
    const bool record =
        at::GradMode::is_enabled() &&
        (q.requires_grad() || k.requires_grad() || v.requires_grad() || call->sinks_trainable());
    return AttentionFunction::apply(q, k, v, anchor, call, record);
  }
  return reference_attention(q, k, v, layout, sinks);
}

}  // namespace qianli::ops
