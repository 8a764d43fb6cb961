#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/ops/dispatch.h"
#include "qianli/ops/norm.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Call : torch::CustomClassHolder {
  Call(Parameter* weight, double eps, GatePlace place) : weight(weight), eps(eps), place(place) {}
  Parameter* weight;
  double eps;
  GatePlace place;
};

// The kernels take a gate whose rows of one token follow each other, as in a slice of a projection.
at::Tensor with_whole_tokens(const at::Tensor& gate) {
  const bool whole = gate.stride(-1) == 1 && (gate.dim() == 2 || gate.stride(-2) == gate.size(-1));
  return gate.dim() <= 3 && whole ? gate : gate.contiguous();
}

GatedNormForward forward_call(const at::Tensor& x, const at::Tensor& gate, const Call& call,
                              const at::Tensor& y, const at::Tensor& rstd) {
  const at::Tensor& weight = call.weight->value();
  const int64_t width = x.size(-1), rows = rstd.size(0);
  const bool by_token = gate.dim() == 3;
  return {.dtype = kernel_dtype(x),
          .rows = rows,
          .width = width,
          .weight_rows = weight.numel() / std::max<int64_t>(1, width),
          .gate_first = call.place == GatePlace::kBeforeNorm,
          .eps = call.eps,
          .x = x.data_ptr(),
          .gate = gate.data_ptr(),
          .gate_rows = by_token          ? gate.size(1)
                       : gate.dim() == 2 ? 1
                                         : std::max<int64_t>(1, rows),
          .gate_stride = gate.stride(0),
          .weight = weight.data_ptr(),
          .y = y.defined() ? y.data_ptr() : nullptr,
          .rstd = rstd.data_ptr<float>()};
}

class GatedNormFunction : public torch::autograd::Function<GatedNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_given,
                            const at::Tensor& gate_given, const at::Tensor&,
                            const c10::intrusive_ptr<Call>& call) {
    const at::Tensor x = x_given.contiguous(), gate = with_whole_tokens(gate_given);
    const int64_t rows = x.size(-1) ? x.numel() / x.size(-1) : 0;
    at::Tensor y = at::empty_like(x), rstd = at::empty({rows}, x.options().dtype(at::kFloat));
    kernels_for(Op::kGatedRmsNorm, x)
        ->gated_norm_forward(forward_call(x, gate, *call, y, rstd), stream_of(x));
    context->save_for_backward({x, gate, rstd});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto call =
        c10::static_intrusive_pointer_cast<Call>(context->saved_data["call"].toCapsule());
    const at::Tensor &x = saved[0], grad_y = grads[0].contiguous();
    at::Tensor grad_x = at::empty_like(x), grad_gate = at::empty(x.sizes(), x.options());
    kernels_for(Op::kGatedRmsNorm, x)
        ->gated_norm_backward({.forward = forward_call(x, saved[1], *call, {}, saved[2]),
                               .grad_y = grad_y.data_ptr(),
                               .grad_x = grad_x.data_ptr(),
                               .grad_gate = grad_gate.data_ptr(),
                               .grad_weight = call->weight->trainable()
                                                  ? call->weight->grad_to_add().data_ptr<float>()
                                                  : nullptr},
                              stream_of(x));
    return {grad_x, grad_gate, {}, {}};
  }
};

}  // namespace

at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& gate, Parameter& weight,
                          double eps, GatePlace place) {
  const at::Tensor& w = weight.value();
  const bool fits = x.dim() >= 1 && (w.numel() == x.size(-1) ||
                                     (x.dim() >= 2 && w.numel() == x.size(-2) * x.size(-1)));
  TORCH_CHECK(x.sizes() == gate.sizes() && fits,
              "[norm] expected x and gate of one shape and a weight [H] or [groups, H], got ",
              x.sizes(), ", ", gate.sizes(), " and ", w.sizes());
  if (!kernels_for(Op::kGatedRmsNorm, x)) {
    const auto formula = [eps, place](const Tensors& inputs, const Tensors& weights) {
      return Tensors{reference::gated_rms_norm(inputs[0], inputs[1], weights[0], eps, place)};
    };
    return apply_reference(formula, {x, gate}, {&weight})[0];
  }
  const at::Tensor anchor = weight.trainable() ? gradient_anchor() : gradient_anchor().detach();
  return GatedNormFunction::apply(x, gate, anchor, c10::make_intrusive<Call>(&weight, eps, place));
}

namespace reference {

at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight,
                          double eps, GatePlace place) {
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor open = at::silu(gate.to(wide)), input = x.to(wide);
  const bool before = place == GatePlace::kBeforeNorm;
  const at::Tensor normed = before ? input * open : input;
  const at::Tensor y = normed * at::rsqrt(normed.pow(2).mean(-1, /*keepdim=*/true) + eps) *
                       weight.to(wide).view({-1, x.size(-1)}).squeeze(0);
  return (before ? y : y * open).to(x.scalar_type());
}

}  // namespace reference

}  // namespace qianli::ops
