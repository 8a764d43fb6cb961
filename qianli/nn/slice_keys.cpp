#include "qianli/nn/slice_keys.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

namespace qianli::nn {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class SliceKeys::Function : public torch::autograd::Function<SliceKeys::Function> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& rows, int64_t all_rows,
                               const c10::intrusive_ptr<Layer>& layer) {
    context->save_for_backward({rows});
    context->saved_data["layer"] = c10::IValue::make_capsule(layer);
    // Every slice has a version of its own: what attention saves of it stays valid when the next
    // slice fills in its rows, which the former does not see.
    return {filled(layer->k, k, rows, all_rows), filled(layer->v, v, rows, all_rows)};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor rows = context->get_saved_variables()[0];
    const auto layer =
        c10::static_intrusive_pointer_cast<Layer>(context->saved_data["layer"].toCapsule());
    return {own_gradient(layer->grad_k, grads[0], rows),
            own_gradient(layer->grad_v, grads[1], rows),
            {},
            {},
            {}};
  }

 private:
  static at::Tensor filled(at::Tensor& whole, const at::Tensor& own, const at::Tensor& rows,
                           int64_t all_rows) {
    if (!whole.defined()) whole = at::zeros({all_rows, own.size(1), own.size(2)}, own.options());
    whole.index_copy_(0, rows, own);
    return whole.variable_data();
  }
  static at::Tensor own_gradient(at::Tensor& sum, const at::Tensor& gradient,
                                 const at::Tensor& rows) {
    const auto type = gradient.scalar_type();
    const auto wide = type == at::kDouble ? at::kDouble : at::kFloat;
    sum = sum.defined() ? sum.add_(gradient)
                        : gradient.to(wide, /*non_blocking=*/false, /*copy=*/true);
    return sum.index_select(0, rows).to(type);
  }
};

KeysAndValues SliceKeys::with_earlier(int64_t layer, const at::Tensor& k, const at::Tensor& v,
                                      const data::SequenceSlice& slice) {
  auto& kept = layers_[layer];
  if (!kept) kept = c10::make_intrusive<Layer>();
  const at::Tensor rows = at::tensor(slice.tokens, at::kLong).to(k.device());
  const auto all = Function::apply(k, v, rows, slice.segment_starts.back(), kept);
  return {all[0], all[1]};
}

}  // namespace qianli::nn
