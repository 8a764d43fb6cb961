#include "qianli/ops/rotary.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/ops/dispatch.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& positions,
                  bool inverse) {
  at::Tensor y = at::empty(x.sizes(), x.options());
  kernels_for(Op::kRotary, x)->rotary({.dtype = kernel_dtype(x),
                                       .tokens = x.size(0),
                                       .heads = x.size(1),
                                       .head_dim = x.size(2),
                                       .rotary_dim = 2 * cos.size(1),
                                       .x = x.data_ptr(),
                                       .x_stride = x.stride(0),
                                       .y = y.data_ptr(),
                                       .y_stride = y.stride(0),
                                       .cos = cos.data_ptr<float>(),
                                       .sin = sin.data_ptr<float>(),
                                       .positions = positions.data_ptr<int64_t>(),
                                       .inverse = inverse},
                                      stream_of(x));
  return y;
}

bool heads_are_contiguous(const at::Tensor& x) { return x.stride(2) == 1 && x.stride(1) == x.size(2); }

class RotaryFunction : public torch::autograd::Function<RotaryFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin, const at::Tensor& positions) {
    context->saved_data["cos"] = cos;
    context->saved_data["sin"] = sin;
    context->saved_data["positions"] = positions;
    return rotate(x, cos, sin, positions, /*inverse=*/false);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor grad = heads_are_contiguous(grads[0]) ? grads[0] : grads[0].contiguous();
    return {rotate(grad, context->saved_data["cos"].toTensor(), context->saved_data["sin"].toTensor(),
                   context->saved_data["positions"].toTensor(), /*inverse=*/true),
            {},
            {},
            {}};
  }
};

}  // namespace

at::Tensor rotary(const at::Tensor& x, const RotaryTable& table, const at::Tensor& positions) {
  if (!kernels_for(Op::kRotary, x)) {
    const auto formula = [table, positions](const Tensors& inputs, const Tensors&) {
      return Tensors{reference::rotary(inputs[0], table, positions)};
    };
    return apply_reference(formula, {x}, {})[0];
  }
  return RotaryFunction::apply(heads_are_contiguous(x) ? x : x.contiguous(), table.cos, table.sin, positions);
}

namespace reference {

at::Tensor rotary(const at::Tensor& x, const RotaryTable& table, const at::Tensor& positions) {
  const int64_t half = table.cos.size(1);
  const at::Tensor cos = table.cos.index_select(0, positions).unsqueeze(1);
  const at::Tensor sin = table.sin.index_select(0, positions).unsqueeze(1);
  const at::Tensor first = x.narrow(2, 0, half), second = x.narrow(2, half, half);
  return at::cat({(first * cos - second * sin).to(x.scalar_type()), (second * cos + first * sin).to(x.scalar_type()),
                  x.narrow(2, 2 * half, x.size(2) - 2 * half)},
                 2);
}

}  // namespace reference

}  // namespace qianli::ops
