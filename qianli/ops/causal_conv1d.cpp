#include "qianli/ops/causal_conv1d.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/ops/dispatch.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Call {
  Parameter* weight;
  Parameter* bias;
  bool silu;
};

CausalConvForward kernel_call(const at::Tensor& x, const Call& call, const SegmentStarts& starts,
                              const at::Tensor& y) {
  return {.dtype = kernel_dtype(x),
          .sequences = static_cast<int64_t>(starts.size()) - 1,
          .starts = starts.data(),
          .channels = x.size(1),
          .kernel = call.weight->value().size(1),
          .silu = call.silu,
          .x = x.data_ptr(),
          .x_stride = x.stride(0),
          .weight = call.weight->value().data_ptr(),
          .bias = call.bias ? call.bias->value().data_ptr() : nullptr,
          .y = y.defined() ? y.data_ptr() : nullptr};
}

float* grad_data(Parameter* parameter) {
  if (!parameter || !parameter->trainable()) return nullptr;
  return parameter->grad_to_add().data_ptr<float>();
}

class CausalConvFunction : public torch::autograd::Function<CausalConvFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_given, const at::Tensor&,
                            const Call& call, const c10::intrusive_ptr<SegmentsHolder>& segments) {
    const at::Tensor x = with_whole_rows(x_given);
    at::Tensor y = at::empty(x.sizes(), x.options());
    kernels_for(Op::kCausalConv1d, x)
        ->causal_conv_forward(kernel_call(x, call, segments->starts, y), stream_of(x));
    context->save_for_backward({x});
    context->saved_data["weight"] = reinterpret_cast<int64_t>(call.weight);
    context->saved_data["bias"] = reinterpret_cast<int64_t>(call.bias);
    context->saved_data["silu"] = call.silu;
    context->saved_data["segments"] = c10::IValue::make_capsule(segments);
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor x = context->get_saved_variables()[0];
    const Call call{reinterpret_cast<Parameter*>(context->saved_data["weight"].toInt()),
                    reinterpret_cast<Parameter*>(context->saved_data["bias"].toInt()),
                    context->saved_data["silu"].toBool()};
    const auto segments = c10::static_intrusive_pointer_cast<SegmentsHolder>(
        context->saved_data["segments"].toCapsule());
    const at::Tensor grad_y = grads[0].contiguous();
    at::Tensor grad_x = at::empty(x.sizes(), x.options());
    kernels_for(Op::kCausalConv1d, x)
        ->causal_conv_backward({.forward = kernel_call(x, call, segments->starts, {}),
                                .grad_y = grad_y.data_ptr(),
                                .grad_x = grad_x.data_ptr(),
                                .grad_weight = grad_data(call.weight),
                                .grad_bias = grad_data(call.bias)},
                               stream_of(x));
    return {grad_x, {}, {}, {}};
  }
};

void check(const at::Tensor& x, const Parameter& weight) {
  TORCH_CHECK(x.dim() == 2 && weight.value().dim() == 2 && weight.value().size(0) == x.size(1) &&
                  weight.value().size(1) > 0,
              "[causal_conv1d] expected x [T, C] and weight [C, kernel], got ", x.sizes(), " and ",
              weight.value().sizes());
}

}  // namespace

at::Tensor causal_conv1d(const at::Tensor& x, Parameter& weight, Parameter* bias,
                         const SegmentStarts& starts, bool silu) {
  check(x, weight);
  check_segments("causal_conv1d", starts, x.size(0));
  if (!kernels_for(Op::kCausalConv1d, x)) {
    std::vector<Parameter*> parameters{&weight};
    if (bias) parameters.push_back(bias);
    const auto formula = [starts, silu](const Tensors& inputs, const Tensors& weights) {
      return Tensors{reference::causal_conv1d(
          inputs[0], weights[0], weights.size() > 1 ? weights[1] : at::Tensor(), starts, silu)};
    };
    return apply_reference(formula, {x}, parameters)[0];
  }
  const bool trainable = weight.trainable() || (bias && bias->trainable());
  return CausalConvFunction::apply(x, trainable ? gradient_anchor() : gradient_anchor().detach(),
                                   Call{&weight, bias, silu},
                                   c10::make_intrusive<SegmentsHolder>(starts));
}

at::Tensor causal_conv1d_update(const at::Tensor& x_given, Parameter& weight, Parameter* bias,
                                at::Tensor& tail, bool silu) {
  check(x_given, weight);
  const at::NoGradGuard no_grad;
  const int64_t before = weight.value().size(1) - 1, rows = x_given.size(0);
  TORCH_CHECK(tail.dim() == 2 && tail.size(0) == before && tail.size(1) == x_given.size(1),
              "[causal_conv1d] expected a tail of ", before, " rows, got ", tail.sizes());
  const at::Tensor x = with_whole_rows(x_given), tail_rows = tail.contiguous();
  at::Tensor y;
  if (const KernelTable* kernels = kernels_for(Op::kCausalConv1d, x)) {
    y = at::empty(x.sizes(), x.options());
    const SegmentStarts starts{0, rows};
    CausalConvForward call = kernel_call(x, {&weight, bias, silu}, starts, y);
    call.tail = tail_rows.data_ptr();
    kernels->causal_conv_forward(call, stream_of(x));
  } else {
    y = reference::causal_conv1d(at::cat({tail_rows, x}, 0), weight.value(),
                                 bias ? bias->value() : at::Tensor(), {0, before + rows}, silu)
            .narrow(0, before, rows);
  }
  tail.copy_(
      at::cat({tail_rows, x.narrow(0, std::max<int64_t>(0, rows - before), std::min(rows, before))},
              0)
          .narrow(0, std::min(rows, before), before));
  return y;
}

namespace reference {

at::Tensor causal_conv1d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const SegmentStarts& starts, bool silu) {
  const int64_t rows = x.size(0), kernel = weight.size(1);
  const at::ScalarType wide = wide_type(x);
  std::vector<int64_t> places;  // of each row in its sequence
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    for (int64_t t = starts[s]; t < starts[s + 1]; ++t) places.push_back(t - starts[s]);
  }
  const at::Tensor place = at::tensor(places, at::kLong).to(x.device()).unsqueeze(1);
  const at::Tensor inputs = x.to(wide), taps = weight.to(wide);
  at::Tensor sum = inputs * taps.select(1, kernel - 1);
  for (int64_t back = 1; back < std::min(kernel, rows); ++back) {
    const at::Tensor earlier = at::cat(
        {at::zeros({back, x.size(1)}, inputs.options()), inputs.narrow(0, 0, rows - back)}, 0);
    sum = sum + (earlier * taps.select(1, kernel - 1 - back)).masked_fill(place < back, 0.0);
  }
  if (bias.defined()) sum = sum + bias.to(wide);
  return (silu ? at::silu(sum) : sum).to(x.scalar_type());
}

}  // namespace reference

}  // namespace qianli::ops
