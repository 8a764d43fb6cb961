#include "qianli/ops/hyper_connection.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "qianli/ops/deferred_gradients.h"
#include "qianli/ops/gemm.h"
#include "qianli/ops/linear.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class RmsLinearFunction : public torch::autograd::Function<RmsLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor&,
                            Parameter* weight, double eps) {
    const at::ScalarType type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor wide = x.to(type);
    const at::Tensor inverse = (wide.square().mean(-1, /*keepdim=*/true) + eps).rsqrt();
    const at::Tensor y = gemm_nt(wide, weight->value().to(type)) * inverse;
    context->save_for_backward({x, inverse, y});
    remember_deferred(context);
    context->saved_data["weight"] = reinterpret_cast<int64_t>(weight);
    return y;
  }

  // With r = 1 / rms: d(r x W^T) = r dx W^T - r^2 (x . dx) / H y.
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto* weight = reinterpret_cast<Parameter*>(context->saved_data["weight"].toInt());
    const auto saved = context->get_saved_variables();
    const at::Tensor &inverse = saved[1], &y = saved[2];
    const at::Tensor wide = saved[0].detach().to(y.scalar_type());
    const at::Tensor scaled = grads[0] * inverse;  // [T, m]
    if (weight->trainable()) {
      add_deferred(context,
                   [weight, scaled, wide] { accumulate_weight_gradient(*weight, scaled, wide); });
    }
    const at::Tensor along =
        (grads[0] * y).sum(-1, /*keepdim=*/true) * inverse.square() / -wide.size(1);
    at::Tensor grad_x = gemm_nt(scaled, weight->value().to(y.scalar_type()).t());
    grad_x.addcmul_(wide, along);
    return {grad_x.to(saved[0].scalar_type()), {}, {}, {}};
  }
};

// One token's numbers; `rows` and `columns` of the matrix are divided in turn.
template <class Real>
class Mixer {
 public:
  explicit Mixer(const HyperShape& shape)
      : shape_(shape), divisors_(static_cast<size_t>(2 * shape.iterations * shape.streams)) {}

  // z: [m], scaled and biased; out: [m].
  void forward(const Real* z, Real* out) {
    const int64_t n = shape_.streams;
    const Real eps = static_cast<Real>(shape_.eps);
    for (int64_t i = 0; i < n; ++i) out[i] = sigmoid(z[i]) + eps;
    if (shape_.iterations == 0) return;
    for (int64_t i = n; i < 2 * n; ++i) out[i] = 2 * sigmoid(z[i]);
    Real* mix = out + 2 * n;
    for (int64_t row = 0; row < n; ++row) softmax(z + (2 + row) * n, mix + row * n);
    divide(mix, 0, 1, n);  // columns
    for (int64_t i = 1; i < shape_.iterations; ++i) {
      divide(mix, 2 * i - 1, n, 1);
      divide(mix, 2 * i, 1, n);
    }
  }

  // z and the result of forward(), which is used up; grad: of the result, becomes that of z.
  void backward(const Real* z, Real* out, Real* grad) {
    const int64_t n = shape_.streams;
    const Real eps = static_cast<Real>(shape_.eps);
    for (int64_t i = 0; i < n; ++i) {
      const Real s = sigmoid(z[i]);
      grad[i] *= s * (1 - s);
    }
    if (shape_.iterations == 0) return;
    for (int64_t i = n; i < 2 * n; ++i) {
      const Real s = sigmoid(z[i]);
      grad[i] *= 2 * s * (1 - s);
    }
    Real *mix = out + 2 * n, *grad_mix = grad + 2 * n;
    for (int64_t i = shape_.iterations - 1; i > 0; --i) {
      undo(mix, grad_mix, 2 * i, 1, n);
      undo(mix, grad_mix, 2 * i - 1, n, 1);
    }
    undo(mix, grad_mix, 0, 1, n);
    for (int64_t row = 0; row < n; ++row) {
      Real along = 0;
      for (int64_t j = 0; j < n; ++j) along += grad_mix[row * n + j] * (mix[row * n + j] - eps);
      for (int64_t j = 0; j < n; ++j) {
        grad_mix[row * n + j] = (grad_mix[row * n + j] - along) * (mix[row * n + j] - eps);
      }
    }
  }

 private:
  static Real sigmoid(Real x) { return 1 / (1 + std::exp(-x)); }

  void softmax(const Real* z, Real* out) const {
    const int64_t n = shape_.streams;
    const Real largest = *std::max_element(z, z + n);
    Real sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += out[j] = std::exp(z[j] - largest);
    for (int64_t j = 0; j < n; ++j) out[j] = out[j] / sum + static_cast<Real>(shape_.eps);
  }

  // Lines `line` apart, of elements `step` apart, each by its sum.
  void divide(Real* mix, int64_t pass, int64_t line, int64_t step) {
    const int64_t n = shape_.streams;
    for (int64_t i = 0; i < n; ++i) {
      Real sum = static_cast<Real>(shape_.eps);
      for (int64_t j = 0; j < n; ++j) sum += mix[i * line + j * step];
      divisors_[static_cast<size_t>(pass * n + i)] = sum;
      for (int64_t j = 0; j < n; ++j) mix[i * line + j * step] /= sum;
    }
  }

  void undo(Real* mix, Real* grad, int64_t pass, int64_t line, int64_t step) const {
    const int64_t n = shape_.streams;
    for (int64_t i = 0; i < n; ++i) {
      const Real divisor = divisors_[static_cast<size_t>(pass * n + i)];
      Real along = 0;
      for (int64_t j = 0; j < n; ++j) along += grad[i * line + j * step] * mix[i * line + j * step];
      for (int64_t j = 0; j < n; ++j) {
        const int64_t at = i * line + j * step;
        grad[at] = (grad[at] - along) / divisor;
        mix[at] *= divisor;
      }
    }
  }

  HyperShape shape_;
  std::vector<Real> divisors_;  // [2 iterations - 1, n]
};

// z: [T, m] contiguous. Without `grad` the numbers, with it its gradient turned into that of z.
template <class Real>
void mix_tokens(const at::Tensor& z, const HyperShape& shape, at::Tensor& numbers,
                at::Tensor* grad) {
  const int64_t width = z.size(1);
  const Real* in = z.const_data_ptr<Real>();
  Real* out = numbers.data_ptr<Real>();
  Real* grads = grad ? grad->data_ptr<Real>() : nullptr;
  at::parallel_for(0, z.size(0), 64, [&](int64_t begin, int64_t end) {
    Mixer<Real> mixer(shape);
    for (int64_t t = begin; t < end; ++t) {
      mixer.forward(in + t * width, out + t * width);
      if (grads) mixer.backward(in + t * width, out + t * width, grads + t * width);
    }
  });
}

at::Tensor mixed(const at::Tensor& z, const HyperShape& shape, at::Tensor* grad = nullptr) {
  at::Tensor numbers = at::empty_like(z);
  z.scalar_type() == at::kDouble ? mix_tokens<double>(z, shape, numbers, grad)
                                 : mix_tokens<float>(z, shape, numbers, grad);
  return numbers;
}

// scale, repeated over the numbers that each of its elements belongs to: [m].
at::Tensor scale_of_each(const at::Tensor& scale, const HyperShape& shape) {
  const int64_t n = shape.streams;
  if (shape.iterations == 0) return scale.expand({n});
  return at::cat({scale.narrow(0, 0, 1).expand({n}), scale.narrow(0, 1, 1).expand({n}),
                  scale.narrow(0, 2, 1).expand({n * n})});
}

class HyperWeightsFunction : public torch::autograd::Function<HyperWeightsFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& logits, const at::Tensor&,
                            Parameter* bias, Parameter* scale, int64_t streams, int64_t iterations,
                            double eps) {
    const HyperShape shape{streams, iterations, eps};
    const at::ScalarType type = logits.scalar_type();
    const at::Tensor factors = scale_of_each(scale->value().to(type), shape);
    const at::Tensor z = logits * factors + bias->value().to(type);
    context->save_for_backward({logits, z, factors});
    context->saved_data["bias"] = reinterpret_cast<int64_t>(bias);
    context->saved_data["scale"] = reinterpret_cast<int64_t>(scale);
    context->saved_data["streams"] = streams;
    context->saved_data["iterations"] = iterations;
    context->saved_data["eps"] = eps;
    return mixed(z, shape);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto* bias = reinterpret_cast<Parameter*>(context->saved_data["bias"].toInt());
    auto* scale = reinterpret_cast<Parameter*>(context->saved_data["scale"].toInt());
    const HyperShape shape{context->saved_data["streams"].toInt(),
                           context->saved_data["iterations"].toInt(),
                           context->saved_data["eps"].toDouble()};
    const auto saved = context->get_saved_variables();
    at::Tensor grad = grads[0].clone(at::MemoryFormat::Contiguous);
    mixed(saved[1], shape, &grad);  // now that of z
    if (bias->trainable()) bias->grad_to_add().add_(grad.sum(0));
    if (scale->trainable()) {
      const at::Tensor each = (grad * saved[0]).sum(0);
      const int64_t n = shape.streams;
      at::Tensor& sums = scale->grad_to_add();
      sums.narrow(0, 0, 1).add_(each.narrow(0, 0, n).sum());
      if (shape.iterations > 0) {
        sums.narrow(0, 1, 1).add_(each.narrow(0, n, n).sum());
        sums.narrow(0, 2, 1).add_(each.narrow(0, 2 * n, n * n).sum());
      }
    }
    return {grad * saved[2], {}, {}, {}, {}, {}, {}};
  }
};

at::Tensor anchor(bool trainable) {
  return trainable ? gradient_anchor() : gradient_anchor().detach();
}

}  // namespace

at::Tensor rms_linear(const at::Tensor& x, Parameter& weight, double norm_eps) {
  return RmsLinearFunction::apply(x, anchor(weight.trainable()), &weight, norm_eps);
}

at::Tensor hyper_weights(const at::Tensor& logits, Parameter& bias, Parameter& scale,
                         const HyperShape& shape) {
  if (!logits.is_cpu()) {
    const auto formula = [shape](const Tensors& inputs, const Tensors& weights) {
      return Tensors{reference::hyper_weights(inputs[0], weights[0], weights[1], shape)};
    };
    return apply_reference(formula, {logits}, {&bias, &scale})[0];
  }
  return HyperWeightsFunction::apply(logits.contiguous(),
                                     anchor(bias.trainable() || scale.trainable()), &bias, &scale,
                                     shape.streams, shape.iterations, shape.eps);
}

namespace reference {

at::Tensor hyper_weights(const at::Tensor& logits, const at::Tensor& bias, const at::Tensor& scale,
                         const HyperShape& shape) {
  const int64_t n = shape.streams;
  const at::Tensor z =
      logits * scale_of_each(scale.to(logits.scalar_type()), shape) + bias.to(logits.scalar_type());
  const at::Tensor read = at::sigmoid(z.narrow(1, 0, n)) + shape.eps;
  if (shape.iterations == 0) return read;
  at::Tensor mix = at::softmax(z.narrow(1, 2 * n, n * n).reshape({-1, n, n}), -1) + shape.eps;
  const auto divide = [&](int64_t axis) {
    mix = mix / (mix.sum(axis, /*keepdim=*/true) + shape.eps);
  };
  divide(-2);
  for (int64_t i = 1; i < shape.iterations; ++i) divide(-1), divide(-2);
  return at::cat({read, 2 * at::sigmoid(z.narrow(1, n, n)), mix.reshape({-1, n * n})}, 1);
}

}  // namespace reference

}  // namespace qianli::ops
