#include "qianli/ops/hyper_connection.h"

#include <ATen/ops/linear.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/ops/op_harness.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

OpCase weights_case(const std::string& name, const ops::HyperShape& shape) {
  const int64_t m = shape.numbers();
  return {.name = name,
          .op = "",
          .inputs = {normal({7, m}, 1)},
          .parameters = {normal({m}, 2), 1 + 0.3 * normal({shape.iterations > 0 ? 3 : 1}, 3)},
          .run = [shape](const Tensors& inputs, const Parameters& parameters) {
            return ops::hyper_weights(inputs[0], *parameters[0], *parameters[1], shape);
          }};
}

TEST(HyperConnection, weights_have_the_gradient_of_their_values) {
  check_gradient(weights_case("mixing", {.streams = 4, .iterations = 20, .eps = 1e-6}));
  check_gradient(weights_case("once", {.streams = 3, .iterations = 1, .eps = 1e-2}));
  check_gradient(weights_case("two rows", {.streams = 2, .iterations = 3, .eps = 0}));
  check_gradient(weights_case("the end", {.streams = 5, .iterations = 0, .eps = 1e-6}));
}

TEST(HyperConnection, weights_are_those_of_the_reference) {
  for (const ops::HyperShape& shape :
       {ops::HyperShape{4, 20, 1e-6}, ops::HyperShape{3, 1, 1e-2}, ops::HyperShape{5, 0, 1e-6}}) {
    const OpCase one = weights_case("", shape);
    for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-13}, {at::kFloat, 2e-6}}) {
      Parameters parameters;
      for (const at::Tensor& value : one.parameters)
        parameters.push_back(std::make_unique<ops::Parameter>("", value.to(dtype)));
      const at::Tensor logits = one.inputs[0].to(dtype);
      expect_close(one.run({logits}, parameters),
                   ops::reference::hyper_weights(logits, parameters[0]->value(),
                                                 parameters[1]->value(), shape),
                   tolerance);
    }
  }
}

TEST(HyperConnection, the_matrix_becomes_doubly_stochastic) {
  const ops::HyperShape shape{.streams = 4, .iterations = 200, .eps = 0};
  const OpCase one = weights_case("", shape);
  Parameters parameters;
  for (const at::Tensor& value : one.parameters)
    parameters.push_back(std::make_unique<ops::Parameter>("", value));
  const at::Tensor mix = one.run(one.inputs, parameters).narrow(1, 8, 16).reshape({7, 4, 4});
  const at::Tensor ones = at::Tensor(mix.sum(1)) * 0 + 1;
  expect_close(mix.sum(1), ones, 1e-12);
  expect_close(mix.sum(2), ones, 1e-8);
}

OpCase rms_case() {
  return {.name = "rms_linear",
          .op = "",
          .inputs = {normal({5, 12}, 4)},
          .parameters = {normal({3, 12}, 5)},
          .run = [](const Tensors& inputs, const Parameters& parameters) {
            return ops::rms_linear(inputs[0], *parameters[0], 1e-3);
          }};
}

TEST(HyperConnection, rms_linear_has_the_gradient_of_its_value) { check_gradient(rms_case()); }

TEST(HyperConnection, rms_linear_is_linear_in_the_normed_input) {
  const OpCase one = rms_case();
  Parameters parameters;
  parameters.push_back(std::make_unique<ops::Parameter>("", one.parameters[0]));
  const at::Tensor& x = one.inputs[0];
  const at::Tensor normed = x * (x.square().mean(-1, true) + 1e-3).rsqrt();
  expect_close(one.run(one.inputs, parameters), at::linear(normed, one.parameters[0]), 1e-13);
}

}  // namespace
}  // namespace qianli::testing
