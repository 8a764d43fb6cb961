#include "qianli/ops/rotary.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/ops/dispatch.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Call {
  RotaryTable table;
  at::Tensor positions;
  RotaryPairs pairs;
};

struct CallHolder : torch::CustomClassHolder {
  explicit CallHolder(Call given) : call(std::move(given)) {}
  Call call;
};

at::Tensor rotate(const at::Tensor& given, const Call& call, bool inverse) {
  const at::Tensor x = given.stride(2) == 1 ? given : given.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  kernels_for(Op::kRotary, x)
      ->rotary({.dtype = kernel_dtype(x),
                .tokens = x.size(0),
                .heads = x.size(1),
                .head_dim = x.size(2),
                .rotary_dim = 2 * call.table.cos.size(1),
                .offset = call.pairs.offset,
                .interleaved = call.pairs.interleaved,
                .x = x.data_ptr(),
                .x_stride = x.stride(0),
                .x_head_stride = x.stride(1),
                .y = y.data_ptr(),
                .y_stride = y.stride(0),
                .cos = call.table.cos.data_ptr<float>(),
                .sin = call.table.sin.data_ptr<float>(),
                .positions = call.positions.data_ptr<int64_t>(),
                .inverse = inverse},
               stream_of(x));
  return y;
}

class RotaryFunction : public torch::autograd::Function<RotaryFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const c10::intrusive_ptr<CallHolder>& holder) {
    context->saved_data["call"] = c10::IValue::make_capsule(holder);
    return rotate(x, holder->call, /*inverse=*/false);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto holder =
        c10::static_intrusive_pointer_cast<CallHolder>(context->saved_data["call"].toCapsule());
    return {rotate(grads[0], holder->call, /*inverse=*/true), {}};
  }
};

}  // namespace

at::Tensor rotary(const at::Tensor& x, const RotaryTable& table, const at::Tensor& positions,
                  const RotaryPairs& pairs) {
  TORCH_CHECK(
      x.dim() == 3 && pairs.offset >= 0 && pairs.offset + 2 * table.cos.size(1) <= x.size(2),
      "[rotary] expected ", 2 * table.cos.size(1), " dimensions from ", pairs.offset,
      " on in each head, got x ", x.sizes());
  if (!kernels_for(Op::kRotary, x)) {
    const auto formula = [table, positions, pairs](const Tensors& inputs, const Tensors&) {
      return Tensors{reference::rotary(inputs[0], table, positions, pairs)};
    };
    return apply_reference(formula, {x}, {})[0];
  }
  if (!at::GradMode::is_enabled()) return rotate(x, {table, positions, pairs}, /*inverse=*/false);
  return RotaryFunction::apply(x, c10::make_intrusive<CallHolder>(Call{table, positions, pairs}));
}

namespace reference {

at::Tensor rotary(const at::Tensor& x, const RotaryTable& table, const at::Tensor& positions,
                  const RotaryPairs& pairs) {
  const int64_t half = table.cos.size(1), end = pairs.offset + 2 * half;
  const at::Tensor cos = table.cos.index_select(0, positions).unsqueeze(1);
  const at::Tensor sin = table.sin.index_select(0, positions).unsqueeze(1);
  const at::Tensor turned = x.narrow(2, pairs.offset, 2 * half);
  // [T, heads, half, 2] or [T, heads, 2, half]
  const int64_t axis = pairs.interleaved ? 3 : 2;
  const at::Tensor both =
      pairs.interleaved ? turned.unflatten(2, {half, 2}) : turned.unflatten(2, {2, half});
  const at::Tensor first = both.select(axis, 0), second = both.select(axis, 1);
  const at::Tensor rotated =
      at::stack({first * cos - second * sin, second * cos + first * sin}, axis)
          .flatten(2)
          .to(x.scalar_type());
  return at::cat({x.narrow(2, 0, pairs.offset), rotated, x.narrow(2, end, x.size(2) - end)}, 2);
}

}  // namespace reference

}  // namespace qianli::ops
