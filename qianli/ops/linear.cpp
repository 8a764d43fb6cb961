#include "qianli/ops/linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/ops/block_weight.h"
#include "qianli/ops/deferred_gradients.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/gemm.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor value_of(const Parameter* bias) { return bias ? bias->value() : at::Tensor(); }

class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor&,
                            Parameter* weight, Parameter* bias, const at::Tensor& matrix) {
    context->saved_data["x_needs_grad"] = x.requires_grad();
    context->saved_data["weight"] = reinterpret_cast<int64_t>(weight);
    context->saved_data["bias"] = reinterpret_cast<int64_t>(bias);
    if (weight->trainable()) context->save_for_backward({x});
    remember_deferred(context);
    return gemm_nt(x, matrix, value_of(bias));
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto* weight = reinterpret_cast<Parameter*>(context->saved_data["weight"].toInt());
    auto* bias = reinterpret_cast<Parameter*>(context->saved_data["bias"].toInt());
    const at::Tensor& grad_y = grads[0];
    at::Tensor grad_x;
    if (context->saved_data["x_needs_grad"].toBool()) grad_x = gemm_nt(grad_y, weight->value().t());
    if (weight->trainable()) {
      add_deferred(context, [weight, grad_y, x = context->get_saved_variables()[0].detach()] {
        accumulate_weight_gradient(*weight, grad_y, x);
      });
    }
    if (bias && bias->trainable()) {
      at::Tensor& buffer = bias->grad_to_add();
      buffer.add_(grad_y.sum(0, /*keepdim=*/false, buffer.scalar_type()));
    }
    return {grad_x, {}, {}, {}, {}};
  }
};

bool is_recorded(const at::Tensor& x, const Parameter& weight, const Parameter* bias) {
  return at::GradMode::is_enabled() &&
         (x.requires_grad() || weight.trainable() || (bias && bias->trainable()));
}

at::Tensor linear_few_rows(const KernelTable& kernels, const at::Tensor& x,
                           const at::Tensor& matrix, const at::Tensor& bias) {
  const at::Tensor rows = x.contiguous();
  at::Tensor y = at::empty({x.size(0), matrix.size(0)}, x.options());
  kernels.linear_few_rows({.dtype = kernel_dtype(x),
                           .rows = x.size(0),
                           .in = x.size(1),
                           .out = y.size(1),
                           .x = rows.data_ptr(),
                           .weight = matrix.data_ptr(),
                           .bias = bias.defined() ? bias.data_ptr() : nullptr,
                           .y = y.data_ptr()},
                          stream_of(x));
  return y;
}

}  // namespace

void accumulate_weight_gradient(Parameter& weight, const at::Tensor& grad_y, const at::Tensor& x) {
  const auto [buffer, beta] = weight.grad_to_accumulate();
  if (buffer.scalar_type() == x.scalar_type()) {
    at::addmm_out(buffer, buffer, grad_y.t(), x, beta, 1.0);
  } else if (beta == 0.0) {
    buffer.copy_(at::mm(grad_y.t(), x));
  } else {
    buffer.add_(at::mm(grad_y.t(), x));
  }
}

at::Tensor linear(const at::Tensor& x, Parameter& weight, Parameter* bias) {
  const at::Tensor matrix = weight.value();  // once: it may be made for each call
  if (const BlockWeight* blocks = block_weight(matrix)) return blocks->linear(x, value_of(bias));
  if (!use_torch(Op::kLinear, x)) {
    std::vector<Parameter*> parameters{&weight};
    if (bias) parameters.push_back(bias);
    const auto formula = [](const Tensors& inputs, const Tensors& weights) {
      return Tensors{
          reference::linear(inputs[0], weights[0], weights.size() > 1 ? weights[1] : at::Tensor())};
    };
    return apply_reference(formula, {x}, parameters)[0];
  }
  if (!is_recorded(x, weight, bias)) {
    const bool few = x.size(0) > 0 && x.size(0) <= kFewRows;
    const KernelTable* kernels = few ? kernels_for(Op::kLinearFewRows, x) : nullptr;
    if (kernels && matrix.scalar_type() == x.scalar_type())
      return linear_few_rows(*kernels, x, matrix, value_of(bias));
    const at::NoGradGuard no_grad;
    return gemm_nt(x, matrix, value_of(bias));
  }
  const bool trainable = weight.trainable() || (bias && bias->trainable());
  const at::Tensor anchor = trainable ? gradient_anchor() : gradient_anchor().detach();
  return LinearFunction::apply(x, anchor, &weight, bias, matrix);
}

namespace reference {
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor product = x.matmul(weight.t());
  return bias.defined() ? product + bias : product;
}
}  // namespace reference

}  // namespace qianli::ops
