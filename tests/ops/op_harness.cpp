#include "tests/ops/op_harness.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "qianli/base/random.h"
#include "qianli/ops/dispatch.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

struct Prepared {
  Tensors inputs;
  Parameters parameters;
};

Prepared prepare(const OpCase& op_case, at::ScalarType dtype) {
  Prepared prepared;
  for (const auto& input : op_case.inputs) {
    const bool floating = at::isFloatingType(input.scalar_type());
    prepared.inputs.push_back(floating ? input.to(dtype).detach().clone().requires_grad_(true)
                                       : input);
  }
  for (const auto& value : op_case.parameters) {
    const at::Tensor own = value.to(dtype).clone();
    auto parameter = std::make_unique<ops::Parameter>("parameter", own);
    // Garbage first: an op must overwrite or zero it, never add to it.
    parameter->attach_grad(
        at::empty(own.sizes(), own.options().dtype(dtype == at::kDouble ? at::kDouble : at::kFloat))
            .fill_(1234.5));
    prepared.parameters.push_back(std::move(parameter));
  }
  return prepared;
}

at::Tensor cotangent(const at::Tensor& output) {
  if (output.dim() == 0) return at::Tensor();  // a loss: its gradient is 1
  at::Tensor values = at::empty({output.numel()}, at::kDouble);
  for (int64_t i = 0; i < output.numel(); ++i) values.data_ptr<double>()[i] = normal_at(99, i);
  return values.view(output.sizes()).to(output.scalar_type());
}

double inner(const at::Tensor& output) {
  const at::Tensor weights = cotangent(output);
  return weights.defined() ? (output.to(at::kDouble) * weights.to(at::kDouble)).sum().item<double>()
                           : output.item<double>();
}

// d inner / d (value along direction) by central differences, moving `value` in place.
double numeric_slope(const OpCase& op_case, Prepared& prepared, at::Tensor value,
                     const at::Tensor& direction) {
  const double step = 1e-6;
  const at::NoGradGuard no_grad;
  const at::Tensor before = value.clone();
  value.copy_(before + step * direction);
  const double above = inner(op_case.run(prepared.inputs, prepared.parameters));
  value.copy_(before - step * direction);
  const double below = inner(op_case.run(prepared.inputs, prepared.parameters));
  value.copy_(before);
  return (above - below) / (2 * step);
}

}  // namespace

at::Tensor normal(std::initializer_list<int64_t> shape, uint64_t seed) {
  at::Tensor values = at::empty(at::IntArrayRef(shape.begin(), shape.size()), at::kDouble);
  for (int64_t i = 0; i < values.numel(); ++i) values.data_ptr<double>()[i] = normal_at(seed, i);
  return values;
}

OpResult evaluate(const OpCase& op_case, at::ScalarType dtype) {
  Prepared prepared = prepare(op_case, dtype);
  OpResult result;
  result.output = op_case.run(prepared.inputs, prepared.parameters);
  const at::Tensor grad = cotangent(result.output);
  torch::autograd::backward({result.output}, grad.defined() ? Tensors{grad} : Tensors{});
  for (const auto& input : prepared.inputs) {
    if (at::isFloatingType(input.scalar_type())) result.input_grads.push_back(input.grad());
  }
  for (const auto& parameter : prepared.parameters)
    result.parameter_grads.push_back(parameter->grad().clone());
  return result;
}

void check_gradient(const OpCase& op_case) {
  SCOPED_TRACE(op_case.name + ", gradient in float64");
  const OpResult analytic = evaluate(op_case, at::kDouble);
  Prepared prepared = prepare(op_case, at::kDouble);
  size_t next = 0;
  const auto compare = [&](at::Tensor value, const at::Tensor& grad, const std::string& what) {
    for (uint64_t trial = 0; trial < 3; ++trial) {
      at::Tensor direction = at::empty(value.sizes(), at::kDouble);
      for (int64_t i = 0; i < value.numel(); ++i)
        direction.data_ptr<double>()[i] = normal_at(7 + trial, i);
      const double numeric = numeric_slope(op_case, prepared, value.detach(), direction);
      const double exact = (grad * direction).sum().item<double>();
      EXPECT_NEAR(numeric, exact, 1e-6 * std::max(1.0, std::abs(exact))) << what;
    }
  };
  for (const auto& input : prepared.inputs) {
    if (!at::isFloatingType(input.scalar_type())) continue;
    ASSERT_TRUE(analytic.input_grads[next].defined());
    compare(input, analytic.input_grads[next], "input " + std::to_string(next));
    ++next;
  }
  for (size_t i = 0; i < prepared.parameters.size(); ++i) {
    compare(prepared.parameters[i]->value(), analytic.parameter_grads[i],
            "parameter " + std::to_string(i));
  }
}

void check_kernels_against_reference(const OpCase& op_case, at::ScalarType dtype) {
  SCOPED_TRACE(op_case.name + ", kernels in " + c10::toString(dtype));
  const double tolerance =
      dtype == at::kFloat ? op_case.float_tolerance : op_case.bfloat16_tolerance;
  ops::choose_backends({});
  const OpResult kernel = evaluate(op_case, dtype);
  ops::choose_backends({{op_case.op, "reference"}});
  // The reference in float64 on the same rounded values is the exact answer.
  OpCase rounded = op_case;
  for (auto& input : rounded.inputs) {
    if (at::isFloatingType(input.scalar_type())) input = input.to(dtype).to(at::kDouble);
  }
  for (auto& parameter : rounded.parameters) parameter = parameter.to(dtype).to(at::kDouble);
  const OpResult exact = evaluate(rounded, at::kDouble);
  ops::choose_backends({});
  EXPECT_EQ(kernel.output.scalar_type(), kernel.output.dim() == 0 ? at::kFloat : dtype);
  expect_close(kernel.output, exact.output, tolerance, "output");
  for (size_t i = 0; i < exact.input_grads.size(); ++i) {
    expect_close(kernel.input_grads[i], exact.input_grads[i], tolerance,
                 "gradient of input " + std::to_string(i));
  }
  for (size_t i = 0; i < exact.parameter_grads.size(); ++i) {
    expect_close(kernel.parameter_grads[i], exact.parameter_grads[i], tolerance,
                 "gradient of parameter " + std::to_string(i));
  }
}

void check_all(const OpCase& op_case) {
  check_gradient(op_case);
  check_kernels_against_reference(op_case, at::kFloat);
  check_kernels_against_reference(op_case, at::kBFloat16);
}

}  // namespace qianli::testing
