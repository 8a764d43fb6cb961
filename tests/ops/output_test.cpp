#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "qianli/device/allocator.h"
#include "qianli/ops/cross_entropy.h"
#include "tests/ops/op_harness.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

at::Tensor ids(std::vector<int64_t> values) { return at::tensor(values, at::kLong); }

TEST(CrossEntropy, equals_the_reference_on_counted_rows) {
  check_all({.name = "cross entropy",
             .op = "cross_entropy",
             .inputs = {normal({9, 6}, 1)},
             .parameters = {normal({37, 6}, 2)},
             .run =
                 [](const Tensors& x, const Parameters& p) {
                   const at::Tensor weights =
                       at::tensor({1.0, 0.5, 0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 0.25}, at::kDouble);
                   const auto dtype = x[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
                   // Row 2 has weight 0 and a label that does not exist.
                   return ops::linear_cross_entropy(
                              x[0], *p[0], ids({0, 36, -100, 5, 5, 1, 0, 20, 7}), weights.to(dtype))
                       .loss;
                 },
             .bfloat16_tolerance = 5e-2});
}

TEST(CrossEntropy, never_holds_the_full_logits) {
  device::install_caching_allocator();
  const int64_t rows = 4096, vocabulary = 16384, width = 16;
  ops::Parameter weight("weight", normal({vocabulary, width}, 1).to(at::kFloat));
  weight.attach_grad(at::zeros({vocabulary, width}));
  const at::Tensor hidden = normal({rows, width}, 2).to(at::kFloat).requires_grad_(true);
  const at::Tensor labels = at::zeros({rows}, at::kLong), weights = at::ones({rows});
  device::reset_peak_host_memory();
  const uint64_t before = device::host_memory().in_use_bytes;
  ops::linear_cross_entropy(hidden, weight, labels, weights).loss.backward();
  const uint64_t used = device::host_memory().peak_in_use_bytes - before;
  EXPECT_LT(used, static_cast<uint64_t>(rows * vocabulary * 4 * 6 / 10));
}

// Row 2 has weight 0 and a label that does not exist.
at::Tensor loss_of(const at::Tensor& hidden, const ops::OutputLayer& layer) {
  const at::Tensor weights =
      at::tensor({1.0, 0.5, 0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 0.25}, at::kDouble);
  const auto dtype = hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return ops::linear_cross_entropy(hidden, layer, ids({0, 36, -100, 5, 5, 1, 0, 20, 7}),
                                   weights.to(dtype))
      .loss;
}

struct OutputCase {
  std::string name;
  bool bias;
  double multiplier, softcap;
  bool normalized;
};
const std::vector<OutputCase>& output_cases() {
  static const std::vector<OutputCase> kCases = {
      {"bias", true, 1.0, 0.0, false},      {"multiplier", false, 0.577, 0.0, false},
      {"softcap", false, 1.0, 2.0, false},  {"normalised rows", false, 1.0, 0.0, true},
      {"everything", true, 1.7, 1.5, true},
  };
  return kCases;
}
ops::OutputLayer layer_of(const OutputCase& c, const Parameters& p) {
  return {.weight = *p[0],
          .bias = c.bias ? p[1].get() : nullptr,
          .multiplier = c.multiplier,
          .softcap = c.softcap,
          .normalized_rows = c.normalized};
}

Tensors parameters_of(const OutputCase& c) {
  if (c.bias) return {normal({37, 6}, 2), normal({37}, 3)};
  return {normal({37, 6}, 2)};
}

TEST(CrossEntropy, of_every_kind_of_output_layer) {
  for (const OutputCase& c : output_cases()) {
    check_all({.name = c.name,
               .op = "cross_entropy",
               .inputs = {normal({9, 6}, 1)},
               .parameters = parameters_of(c),
               .run = [c](const Tensors& x,
                          const Parameters& p) { return loss_of(x[0], layer_of(c, p)); },
               .float_tolerance = 4e-6,
               .bfloat16_tolerance = 5e-2});
  }
}

// The gradients of several calls add up, also where rows are normalised.
TEST(CrossEntropy, of_normalised_rows_adds_to_an_earlier_gradient) {
  check_all({.name = "twice",
             .op = "cross_entropy",
             .inputs = {normal({9, 6}, 1)},
             .parameters = {normal({37, 6}, 2)},
             .run =
                 [](const Tensors& x, const Parameters& p) {
                   const ops::OutputLayer layer{.weight = *p[0], .normalized_rows = true};
                   return loss_of(x[0], layer) + loss_of(x[0] * 0.5, layer);
                 },
             .bfloat16_tolerance = 5e-2});
}

TEST(OutputLogits, give_the_loss_that_the_fused_op_gives) {
  for (const OutputCase& c : output_cases()) {
    const OpCase logits{.name = c.name,
                        .op = "linear",
                        .inputs = {normal({9, 6}, 1)},
                        .parameters = parameters_of(c),
                        .run = [c](const Tensors& x, const Parameters& p) {
                          return ops::output_logits(x[0], layer_of(c, p));
                        }};
    check_all(logits);
    OpCase loss = logits;
    loss.run = [c](const Tensors& x, const Parameters& p) {
      const at::Tensor labels = ids({0, 36, 1, 5, 5, 1, 0, 20, 7});
      return ops::reference::cross_entropy(ops::output_logits(x[0], layer_of(c, p)), labels).sum();
    };
    OpCase fused = logits;
    fused.run = [c](const Tensors& x, const Parameters& p) {
      const at::Tensor labels = ids({0, 36, 1, 5, 5, 1, 0, 20, 7}),
                       weights = at::ones({9}, at::kDouble);
      return ops::linear_cross_entropy(x[0], layer_of(c, p), labels, weights).loss;
    };
    const OpResult one = evaluate(loss, at::kDouble), other = evaluate(fused, at::kDouble);
    expect_close(other.output, one.output, 1e-12, c.name);
    expect_close(other.input_grads[0], one.input_grads[0], 1e-11, c.name);
    for (size_t i = 0; i < one.parameter_grads.size(); ++i) {
      expect_close(other.parameter_grads[i], one.parameter_grads[i], 1e-11, c.name);
    }
  }
}

}  // namespace
}  // namespace qianli::testing
