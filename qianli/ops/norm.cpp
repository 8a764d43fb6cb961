#include "qianli/ops/norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/ops/dispatch.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Call {
  Op op;  // kRmsNorm or kLayerNorm
  Parameter* weight;
  Parameter* bias;  // of a LayerNorm, or null
  double eps;
  NormWeight kind = NormWeight::kPlain;

  bool centred() const { return op == Op::kLayerNorm; }
};
struct CallHolder : torch::CustomClassHolder {
  explicit CallHolder(const Call& given) : call(given) {}
  Call call;
};

float* float_data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr<float>() : nullptr;
}
float* grad_data(Parameter* parameter) {
  return parameter && parameter->trainable() ? parameter->grad_to_add().data_ptr<float>() : nullptr;
}
int64_t weight_rows(const at::Tensor& weight) { return weight.dim() == 2 ? weight.size(0) : 1; }

void check_shapes(const at::Tensor& x, const at::Tensor& weight) {
  const bool fits = weight.dim() == 1
                        ? x.dim() >= 1 && x.size(-1) == weight.size(0)
                        : weight.dim() == 2 && x.dim() >= 2 && x.size(-1) == weight.size(1) &&
                              x.size(-2) == weight.size(0);
  TORCH_CHECK(fits, "[norm] expected a weight [H] or [heads, H] for x ", x.sizes(), ", got ",
              weight.sizes());
}

struct Normed {
  at::Tensor y, sum;  // of x and the residual; x where there is none
  at::Tensor rstd, mean;

  Tensors results(bool fused) const { return fused ? Tensors{y, sum} : Tensors{y}; }
};

Normed forward_rows(const at::Tensor& x_given, const std::optional<at::Tensor>& residual_given,
                    const Call& call) {
  const at::Tensor x = x_given.contiguous();
  const bool fused = residual_given.has_value();
  const at::Tensor residual = fused ? residual_given->contiguous() : at::Tensor();
  const at::Tensor& weight = call.weight->value();
  const int64_t width = x.size(-1), rows = width ? x.numel() / width : 0;
  const auto statistics = x.options().dtype(at::kFloat);
  Normed normed{.y = at::empty_like(x),
                .sum = fused ? at::empty_like(x) : x,
                .rstd = at::empty({rows}, statistics),
                .mean = call.centred() ? at::empty({rows}, statistics) : at::Tensor()};
  const KernelTable* kernels = kernels_for(call.op, x);
  (call.centred() ? kernels->layer_norm_forward : kernels->rms_norm_forward)(
      {.dtype = kernel_dtype(x),
       .rows = rows,
       .width = width,
       .weight_rows = weight_rows(weight),
       .zero_centered = call.kind == NormWeight::kZeroCentered,
       .eps = call.eps,
       .x = x.data_ptr(),
       .residual = fused ? residual.data_ptr() : nullptr,
       .weight = weight.data_ptr(),
       .bias = call.bias ? call.bias->value().data_ptr() : nullptr,
       .y = normed.y.data_ptr(),
       .sum = fused ? normed.sum.data_ptr() : nullptr,
       .mean = float_data(normed.mean),
       .rstd = normed.rstd.data_ptr<float>()},
      stream_of(x));
  return normed;
}

// Returns {y} or, with a residual, {y, sum}.
class NormFunction : public torch::autograd::Function<NormFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const std::optional<at::Tensor>& residual, const at::Tensor&,
                               const Call& call) {
    const Normed normed = forward_rows(x, residual, call);
    context->save_for_backward({normed.sum, normed.rstd, normed.mean});
    context->saved_data["call"] = c10::IValue::make_capsule(c10::make_intrusive<CallHolder>(call));
    context->set_materialize_grads(false);
    return normed.results(residual.has_value());
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto holder =
        c10::static_intrusive_pointer_cast<CallHolder>(context->saved_data["call"].toCapsule());
    const Call& call = holder->call;
    const auto saved = context->get_saved_variables();
    const at::Tensor& sum = saved[0];
    const at::Tensor grad_y = grads[0].defined() ? grads[0].contiguous() : at::zeros_like(sum);
    const at::Tensor grad_sum =
        grads.size() > 1 && grads[1].defined() ? grads[1].contiguous() : at::Tensor();
    const at::Tensor& weight = call.weight->value();
    at::Tensor grad_x = at::empty_like(sum);
    const KernelTable* kernels = kernels_for(call.op, sum);
    (call.centred() ? kernels->layer_norm_backward : kernels->rms_norm_backward)(
        {.dtype = kernel_dtype(sum),
         .rows = saved[1].size(0),
         .width = sum.size(-1),
         .weight_rows = weight_rows(weight),
         .zero_centered = call.kind == NormWeight::kZeroCentered,
         .grad_y = grad_y.data_ptr(),
         .grad_sum = grad_sum.defined() ? grad_sum.data_ptr() : nullptr,
         .sum = sum.data_ptr(),
         .weight = weight.data_ptr(),
         .mean = float_data(saved[2]),
         .rstd = saved[1].data_ptr<float>(),
         .grad_x = grad_x.data_ptr(),
         .grad_weight = grad_data(call.weight),
         .grad_bias = grad_data(call.bias)},
        stream_of(sum));
    return {grad_x, grads.size() > 1 ? grad_x : at::Tensor(), {}, {}};
  }
};

Tensors reference_norm(const Tensors& inputs, const Tensors& weights, const Call& call) {
  const bool fused = inputs.size() > 1;
  const at::Tensor sum = fused ? inputs[0] + inputs[1] : inputs[0];
  const at::Tensor bias = weights.size() > 1 ? weights[1] : at::Tensor();
  const at::Tensor y = call.centred() ? reference::layer_norm(sum, weights[0], bias, call.eps)
                                      : reference::rms_norm(sum, weights[0], call.eps, call.kind);
  return fused ? Tensors{y, sum} : Tensors{y};
}

Tensors norm(const at::Tensor& x, const std::optional<at::Tensor>& residual, const Call& call) {
  check_shapes(x, call.weight->value());
  if (!kernels_for(call.op, x)) {
    std::vector<Parameter*> parameters{call.weight};
    if (call.bias) parameters.push_back(call.bias);
    const auto formula = [call](const Tensors& inputs, const Tensors& weights) {
      return reference_norm(inputs, weights, call);
    };
    return apply_reference(formula, residual ? Tensors{x, *residual} : Tensors{x}, parameters);
  }
  if (!at::GradMode::is_enabled())
    return forward_rows(x, residual, call).results(residual.has_value());
  const bool trainable = call.weight->trainable() || (call.bias && call.bias->trainable());
  return NormFunction::apply(x, residual,
                             trainable ? gradient_anchor() : gradient_anchor().detach(), call);
}

at::Tensor widened(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}
at::Tensor normalised(const at::Tensor& wide, double eps) {
  return wide * at::rsqrt(wide.pow(2).mean(-1, /*keepdim=*/true) + eps);
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, Parameter& weight, double eps, NormWeight kind) {
  return norm(x, {}, {Op::kRmsNorm, &weight, nullptr, eps, kind})[0];
}

at::Tensor layer_norm(const at::Tensor& x, Parameter& weight, Parameter* bias, double eps) {
  return norm(x, {}, {Op::kLayerNorm, &weight, bias, eps})[0];
}

NormWithSum add_rms_norm(const at::Tensor& x, const at::Tensor& residual, Parameter& weight,
                         double eps, NormWeight kind) {
  const auto results = norm(x, residual, {Op::kRmsNorm, &weight, nullptr, eps, kind});
  return {results[0], results[1]};
}

NormWithSum add_layer_norm(const at::Tensor& x, const at::Tensor& residual, Parameter& weight,
                           Parameter* bias, double eps) {
  const auto results = norm(x, residual, {Op::kLayerNorm, &weight, bias, eps});
  return {results[0], results[1]};
}

namespace reference {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, NormWeight kind) {
  const at::Tensor scaled = normalised(widened(x), eps);
  if (kind == NormWeight::kPlain) return scaled.to(x.scalar_type()) * weight;
  return (scaled * (1.0 + weight.to(scaled.scalar_type()))).to(x.scalar_type());
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps) {
  const at::Tensor wide = widened(x);
  const at::Tensor scaled = normalised(wide - wide.mean(-1, /*keepdim=*/true), eps) * weight;
  return (bias.defined() ? scaled + bias : scaled).to(x.scalar_type());
}

}  // namespace reference

}  // namespace qianli::ops
