#include "qianli/nn/shared_norm.h"

#include <ATen/ops/rsqrt.h>
#include <ATen/ops/stack.h>
#include <torch/csrc/autograd/custom_function.h>

namespace qianli::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Call : SharedNorm, torch::CustomClassHolder {
  explicit Call(const SharedNorm& norm) : SharedNorm(norm) {}

  bool centred() const { return kind == model::NormKind::kLayerNorm; }
  at::Tensor factor(at::ScalarType dtype) const {
    const at::Tensor wide = weight->value().to(dtype);
    const bool from_zero = !centred() && weight_kind == ops::NormWeight::kZeroCentered;
    return from_zero ? wide + 1.0 : wide;
  }
  struct Means {
    at::Tensor first, second;  // [T, 1]; of RMSNorm the second alone
  };
  // Over whole rows, of two values of this rank's columns.
  Means means(const at::Tensor& first, const at::Tensor& second) const {
    std::vector<at::Tensor> sums;
    if (centred()) sums.push_back(first.sum(1, true));
    sums.push_back(second.sum(1, true));
    const at::Tensor all = at::stack(sums);
    columns.all_reduce(all);
    all.div_(static_cast<double>(width));
    return {centred() ? all[0] : at::Tensor(), all[all.size(0) - 1]};
  }
};

at::Tensor widened(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

void add_gradient(ops::Parameter* parameter, const at::Tensor& gradient) {
  if (parameter && parameter->trainable()) parameter->grad_to_add().add_(gradient);
}

class SharedNormFunction : public torch::autograd::Function<SharedNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor&,
                            const c10::intrusive_ptr<Call>& call) {
    const at::Tensor wide = widened(x);
    const auto [mean, square] = call->means(wide, wide * wide);
    // The squares of a row's differences from its mean would take a second message.
    const at::Tensor variance = mean.defined() ? (square - mean * mean).clamp_min_(0) : square;
    const at::Tensor rstd = at::rsqrt(variance + call->eps);
    context->save_for_backward({x, mean, rstd});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    at::Tensor y = normed(wide, mean, rstd) * call->factor(wide.scalar_type());
    if (call->bias) y = y + call->bias->value().to(y.scalar_type());
    return y.to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto call =
        c10::static_intrusive_pointer_cast<Call>(context->saved_data["call"].toCapsule());
    const auto saved = context->get_saved_variables();
    const at::Tensor scaled = normed(widened(saved[0]), saved[1], saved[2]);
    const at::Tensor grad_y = widened(grads[0]);
    add_gradient(call->weight, (grad_y * scaled).sum(0));
    add_gradient(call->bias, grad_y.sum(0));
    const at::Tensor grad = grad_y * call->factor(grad_y.scalar_type());
    const auto [mean, product] = call->means(grad, grad * scaled);
    at::Tensor grad_x = grad - scaled * product;
    if (mean.defined()) grad_x = grad_x - mean;
    return {(grad_x * saved[2]).to(saved[0].scalar_type()), {}, {}};
  }

 private:
  static at::Tensor normed(const at::Tensor& wide, const at::Tensor& mean, const at::Tensor& rstd) {
    return (mean.defined() ? wide - mean : wide) * rstd;
  }
};

}  // namespace

at::Tensor shared_norm(const at::Tensor& x, const SharedNorm& norm) {
  const bool trainable = norm.weight->trainable() || (norm.bias && norm.bias->trainable());
  const at::Tensor anchor = trainable ? ops::gradient_anchor() : ops::gradient_anchor().detach();
  return SharedNormFunction::apply(x, anchor, c10::make_intrusive<Call>(norm));
}

}  // namespace qianli::nn
