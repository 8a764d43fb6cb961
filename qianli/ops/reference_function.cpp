#include "qianli/ops/reference_function.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Call : torch::CustomClassHolder {
  std::function<Tensors(const Tensors&, const Tensors&)> formula;
  std::vector<Parameter*> parameters;
  size_t num_inputs = 0;

  Tensors weights() const {
    Tensors values;
    for (Parameter* parameter : parameters) values.push_back(parameter->value());
    return values;
  }
};

class ReferenceFunction : public torch::autograd::Function<ReferenceFunction> {
 public:
  static variable_list forward(AutogradContext* context, at::TensorList inputs_and_anchor,
                               const c10::intrusive_ptr<Call>& call) {
    const Tensors inputs(inputs_and_anchor.begin(), inputs_and_anchor.end() - 1);
    context->save_for_backward(inputs);
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return call->formula(inputs, call->weights());
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto call =
        c10::static_intrusive_pointer_cast<Call>(context->saved_data["call"].toCapsule());
    at::AutoGradMode recording(true);
    variable_list leaves;
    Tensors inputs, weights;
    for (const auto& saved : context->get_saved_variables()) {
      inputs.push_back(saved.detach());
      if (at::isFloatingType(saved.scalar_type()))
        leaves.push_back(inputs.back().requires_grad_(true));
    }
    for (Parameter* parameter : call->parameters) {
      weights.push_back(parameter->value().detach());
      if (parameter->trainable()) leaves.push_back(weights.back().requires_grad_(true));
    }
    variable_list outputs, output_grads;
    const auto results = call->formula(inputs, weights);
    for (size_t i = 0; i < results.size(); ++i) {
      if (!results[i].requires_grad()) continue;
      outputs.push_back(results[i]);
      output_grads.push_back(grads[i]);
    }
    const auto found = torch::autograd::grad(outputs, leaves, output_grads, /*retain_graph=*/false,
                                             /*create_graph=*/false, /*allow_unused=*/true);
    return hand_over(*call, inputs, found);
  }

 private:
  // Gradients of inputs in the order of forward's arguments; those of parameters go to their
  // buffers.
  static variable_list hand_over(const Call& call, const Tensors& inputs,
                                 const variable_list& found) {
    variable_list input_grads;
    size_t next = 0;
    for (const auto& input : inputs)
      input_grads.push_back(input.requires_grad() ? found[next++] : at::Tensor());
    for (Parameter* parameter : call.parameters) {
      if (!parameter->trainable()) continue;
      const at::Tensor& grad = found[next++];
      if (grad.defined()) parameter->grad_to_add().add_(grad);
    }
    input_grads.emplace_back();  // the anchor
    input_grads.emplace_back();  // the call
    return input_grads;
  }
};

}  // namespace

Tensors apply_reference(std::function<Tensors(const Tensors&, const Tensors&)> formula,
                        const Tensors& inputs, std::vector<Parameter*> parameters) {
  auto call = c10::make_intrusive<Call>();
  call->formula = std::move(formula);
  call->parameters = std::move(parameters);
  Tensors tracked = inputs;
  bool trainable = false;
  for (Parameter* parameter : call->parameters) trainable = trainable || parameter->trainable();
  tracked.push_back(trainable ? gradient_anchor() : gradient_anchor().detach());
  return ReferenceFunction::apply(at::TensorList(tracked), call);
}

}  // namespace qianli::ops
