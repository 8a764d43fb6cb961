#include "qianli/ops/activation.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/ops/dispatch.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor forward_rows(const at::Tensor& x, ActivationKind kind, bool gated, double limit) {
  const int64_t width = gated ? x.size(1) / 2 : x.size(1);
  at::Tensor y = at::empty({x.size(0), width}, x.options());
  kernels_for(Op::kActivation, x)
      ->activation_forward({.dtype = kernel_dtype(x),
                            .kind = kind,
                            .gated = gated,
                            .rows = x.size(0),
                            .width = width,
                            .x = x.data_ptr(),
                            .y = y.data_ptr(),
                            .limit = limit},
                           stream_of(x));
  return y;
}

class ActivationFunction : public torch::autograd::Function<ActivationFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_given, int64_t kind,
                            bool gated, double limit) {
    const at::Tensor x = x_given.contiguous();
    context->save_for_backward({x});
    context->saved_data["kind"] = kind;
    context->saved_data["gated"] = gated;
    context->saved_data["limit"] = limit;
    return forward_rows(x, static_cast<ActivationKind>(kind), gated, limit);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor x = context->get_saved_variables()[0];
    const at::Tensor grad_y = grads[0].contiguous();
    at::Tensor grad_x = at::empty_like(x);
    kernels_for(Op::kActivation, x)
        ->activation_backward(
            {.dtype = kernel_dtype(x),
             .kind = static_cast<ActivationKind>(context->saved_data["kind"].toInt()),
             .gated = context->saved_data["gated"].toBool(),
             .rows = x.size(0),
             .width = grad_y.size(1),
             .x = x.data_ptr(),
             .grad_y = grad_y.data_ptr(),
             .grad_x = grad_x.data_ptr(),
             .limit = context->saved_data["limit"].toDouble()},
            stream_of(x));
    return {grad_x, {}, {}, {}};
  }
};

at::Tensor apply(const at::Tensor& x, ActivationKind kind, bool gated, double limit) {
  TORCH_CHECK(gated || kind != ActivationKind::kClampedSwiglu,
              "[activation] expected a gate beside a clamped SwiGLU");
  if (!kernels_for(Op::kActivation, x)) {
    const auto formula = [kind, gated, limit](const Tensors& inputs, const Tensors&) {
      return Tensors{gated ? reference::gated_activation(inputs[0], kind, limit)
                           : reference::activation(inputs[0], kind)};
    };
    return apply_reference(formula, {x}, {})[0];
  }
  if (!at::GradMode::is_enabled()) return forward_rows(x.contiguous(), kind, gated, limit);
  return ActivationFunction::apply(x, static_cast<int64_t>(kind), gated, limit);
}

}  // namespace

at::Tensor activation(const at::Tensor& x, ActivationKind kind) {
  return apply(x, kind, /*gated=*/false, 0.0);
}
at::Tensor gated_activation(const at::Tensor& x, ActivationKind kind, double limit) {
  return apply(x, kind, /*gated=*/true, limit);
}

namespace reference {

at::Tensor activation(const at::Tensor& x, ActivationKind kind) {
  switch (kind) {
    case ActivationKind::kSilu:
      return at::silu(x);
    case ActivationKind::kGelu:
      return at::gelu(x, "none");
    case ActivationKind::kGeluTanh:
      return at::gelu(x, "tanh");
    case ActivationKind::kRelu:
      return at::relu(x);
    case ActivationKind::kRelu2:
      return at::relu(x).square();
    case ActivationKind::kClampedSwiglu:
      return x * at::sigmoid(1.702 * x);
  }
  return {};
}

at::Tensor gated_activation(const at::Tensor& x, ActivationKind kind, double limit) {
  const bool clamped_swiglu = kind == ActivationKind::kClampedSwiglu;
  const int64_t width = x.size(1) / 2;
  at::Tensor gate = x.narrow(1, 0, width), up = x.narrow(1, width, width);
  if (limit > 0.0) up = up.clamp(-limit, limit);
  if (limit > 0.0 && clamped_swiglu) gate = gate.clamp_max(limit);
  at::Tensor active = reference::activation(gate, kind);
  if (limit > 0.0 && !clamped_swiglu) active = active.clamp_max(limit);
  return active * (clamped_swiglu ? up + 1.0 : up);
}

}  // namespace reference

}  // namespace qianli::ops
