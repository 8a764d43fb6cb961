#include "qianli/ops/grouped_linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <fmt/core.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>
#include <stdexcept>

#include "qianli/ops/block_weight.h"
#include "qianli/ops/deferred_gradients.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// body(g, first, count) for the groups that have rows.
template <class Body>
void each_group(const std::vector<int64_t>& counts, const Body& body) {
  int64_t first = 0;
  for (size_t g = 0; g < counts.size(); ++g) {
    if (counts[g] > 0) body(static_cast<int64_t>(g), first, counts[g]);
    first += counts[g];
  }
}

Groups groups_of(const at::Tensor& x, const std::vector<int64_t>& counts,
                 const at::Tensor& weight) {
  return {.dtype = kernel_dtype(x),
          .groups = weight.size(0),
          .counts = counts.data(),
          .in = weight.size(2),
          .out = weight.size(1)};
}

at::Tensor forward_rows(const at::Tensor& x, const std::vector<int64_t>& counts,
                        const at::Tensor& weight, const at::Tensor& bias) {
  at::Tensor y = at::empty({x.size(0), weight.size(1)}, x.options());
  if (const KernelTable* kernels = kernels_for(Op::kGroupedLinear, x)) {
    kernels->grouped_linear_forward({.shape = groups_of(x, counts, weight),
                                     .x = x.data_ptr(),
                                     .weight = weight.data_ptr(),
                                     .bias = bias.defined() ? bias.data_ptr() : nullptr,
                                     .y = y.data_ptr()},
                                    stream_of(x));
    return y;
  }
  each_group(counts, [&](int64_t g, int64_t first, int64_t count) {
    at::Tensor part = y.narrow(0, first, count);
    const at::Tensor rows = x.narrow(0, first, count), matrix = weight.select(0, g).t();
    if (bias.defined()) {
      at::addmm_out(part, bias.select(0, g), rows, matrix);
    } else {
      at::mm_out(part, rows, matrix);
    }
  });
  return y;
}

at::Tensor input_gradient(const at::Tensor& grad_y, const std::vector<int64_t>& counts,
                          const at::Tensor& weight) {
  at::Tensor grad_x = at::empty({grad_y.size(0), weight.size(2)}, grad_y.options());
  if (const KernelTable* kernels = kernels_for(Op::kGroupedLinear, grad_y)) {
    kernels->grouped_linear_backward_input({.shape = groups_of(grad_y, counts, weight),
                                            .grad_y = grad_y.data_ptr(),
                                            .weight = weight.data_ptr(),
                                            .grad_x = grad_x.data_ptr()},
                                           stream_of(grad_y));
    return grad_x;
  }
  each_group(counts, [&](int64_t g, int64_t first, int64_t count) {
    at::Tensor part = grad_x.narrow(0, first, count);
    at::mm_out(part, grad_y.narrow(0, first, count), weight.select(0, g));
  });
  return grad_x;
}

void add_weight_gradient(at::Tensor buffer, double beta, const at::Tensor& grad_y,
                         const at::Tensor& x) {
  if (buffer.scalar_type() == x.scalar_type()) {
    at::addmm_out(buffer, buffer, grad_y.t(), x, beta, 1.0);
  } else if (beta == 0.0) {
    buffer.copy_(at::mm(grad_y.t(), x));
  } else {
    buffer.add_(at::mm(grad_y.t(), x));
  }
}

// Either parameter may be frozen; `bias` may be null.
void accumulate_gradients(const at::Tensor& grad_y, const at::Tensor& x,
                          const std::vector<int64_t>& counts, Parameter& weight, Parameter* bias) {
  const bool with_bias = bias && bias->trainable();
  if (!weight.trainable() && !with_bias) return;
  at::Tensor matrix;
  double beta = 0.0;
  if (weight.trainable()) {
    const Parameter::Accumulation accumulation = weight.grad_to_accumulate();
    matrix = accumulation.buffer;
    beta = accumulation.beta;
  }
  const at::Tensor sums = with_bias ? bias->grad_to_add() : at::Tensor();
  if (const KernelTable* kernels = kernels_for(Op::kGroupedLinear, grad_y)) {
    kernels->grouped_linear_backward_weight(
        {.shape = groups_of(grad_y, counts, matrix.defined() ? matrix : weight.value()),
         .grad_y = grad_y.data_ptr(),
         .x = x.defined() ? x.data_ptr() : nullptr,
         .grad_weight = matrix.defined() ? matrix.data_ptr<float>() : nullptr,
         .accumulate = beta != 0.0,
         .grad_bias = sums.defined() ? sums.data_ptr<float>() : nullptr},
        stream_of(grad_y));
    return;
  }
  for (size_t g = 0; matrix.defined() && beta == 0.0 && g < counts.size(); ++g) {
    if (counts[g] == 0) matrix.select(0, static_cast<int64_t>(g)).zero_();
  }
  each_group(counts, [&](int64_t g, int64_t first, int64_t count) {
    const at::Tensor grad = grad_y.narrow(0, first, count);
    if (matrix.defined()) {
      add_weight_gradient(matrix.select(0, g), beta, grad, x.narrow(0, first, count));
    }
    if (sums.defined()) {
      sums.select(0, g).add_(grad.sum(0, /*keepdim=*/false, sums.scalar_type()));
    }
  });
}

at::Tensor by_blocks(const at::Tensor& x, const std::vector<int64_t>& counts,
                     const BlockWeight& weight, int64_t out, const at::Tensor& bias) {
  at::Tensor y = at::empty({x.size(0), out}, x.options());
  each_group(counts, [&](int64_t g, int64_t first, int64_t count) {
    y.narrow(0, first, count)
        .copy_(weight.linear(x.narrow(0, first, count),
                             bias.defined() ? bias.select(0, g) : at::Tensor(), g));
  });
  return y;
}

class GroupedLinearFunction : public torch::autograd::Function<GroupedLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_given, const at::Tensor&,
                            const std::vector<int64_t>& counts, Parameter* weight, Parameter* bias,
                            const at::Tensor& matrices) {
    const at::Tensor x = x_given.contiguous();
    context->saved_data["x_needs_grad"] = x_given.requires_grad();
    context->saved_data["counts"] = counts;
    context->saved_data["weight"] = reinterpret_cast<int64_t>(weight);
    context->saved_data["bias"] = reinterpret_cast<int64_t>(bias);
    context->save_for_backward({weight->trainable() ? x : at::Tensor()});
    remember_deferred(context);
    return forward_rows(x, counts, matrices, bias ? bias->value() : at::Tensor());
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto* weight = reinterpret_cast<Parameter*>(context->saved_data["weight"].toInt());
    auto* bias = reinterpret_cast<Parameter*>(context->saved_data["bias"].toInt());
    const std::vector<int64_t> counts = context->saved_data["counts"].toIntVector();
    const at::Tensor grad_y = grads[0].contiguous();
    at::Tensor grad_x;
    if (context->saved_data["x_needs_grad"].toBool()) {
      grad_x = input_gradient(grad_y, counts, weight->value());
    }
    at::Tensor x = context->get_saved_variables()[0];
    if (x.defined()) x = x.detach();
    add_deferred(context, [grad_y, x, counts, weight, bias] {
      accumulate_gradients(grad_y, x, counts, *weight, bias);
    });
    return {grad_x, {}, {}, {}, {}, {}};
  }
};

void check(const at::Tensor& x, const std::vector<int64_t>& counts, const Parameter& weight) {
  const int64_t rows = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const at::IntArrayRef sizes = weight.sizes();
  const bool fits = sizes.size() == 3 && x.dim() == 2 && rows == x.size(0) &&
                    x.size(1) == sizes[2] && static_cast<int64_t>(counts.size()) == sizes[0];
  if (fits) return;
  throw std::invalid_argument(
      fmt::format("grouped_linear: {} counts with {} rows do not fit x and weight {}",
                  counts.size(), rows, weight.name()));
}

}  // namespace

at::Tensor grouped_linear(const at::Tensor& x, const std::vector<int64_t>& counts,
                          Parameter& weight, Parameter* bias) {
  check(x, counts, weight);
  const at::Tensor matrices = weight.value();  // once: they may be made for each call
  if (const BlockWeight* blocks = block_weight(matrices))
    return by_blocks(x, counts, *blocks, weight.sizes()[1], bias ? bias->value() : at::Tensor());
  if (!kernels_for(Op::kGroupedLinear, x) && !use_torch(Op::kGroupedLinear, x)) {
    std::vector<Parameter*> parameters{&weight};
    if (bias) parameters.push_back(bias);
    const auto formula = [counts](const Tensors& inputs, const Tensors& weights) {
      return Tensors{reference::grouped_linear(inputs[0], counts, weights[0],
                                               weights.size() > 1 ? weights[1] : at::Tensor())};
    };
    return apply_reference(formula, {x}, parameters)[0];
  }
  const bool trainable = weight.trainable() || (bias && bias->trainable());
  const at::Tensor anchor = trainable ? gradient_anchor() : gradient_anchor().detach();
  return GroupedLinearFunction::apply(x, anchor, counts, &weight, bias, matrices);
}

namespace reference {

at::Tensor grouped_linear(const at::Tensor& x, const std::vector<int64_t>& counts,
                          const at::Tensor& weight, const at::Tensor& bias) {
  Tensors parts{at::empty({0, weight.size(1)}, x.options())};
  each_group(counts, [&](int64_t g, int64_t first, int64_t count) {
    const at::Tensor product = x.narrow(0, first, count).matmul(weight.select(0, g).t());
    parts.push_back(bias.defined() ? product + bias.select(0, g) : product);
  });
  return at::cat(parts, 0);
}

}  // namespace reference

}  // namespace qianli::ops
