// Adapters of low rank against their formulas, in float64.
#include "qianli/ops/low_rank.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <deque>

#include "qianli/ops/local_low_rank.h"
#include "tests/ops/op_harness.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

using ops::LowRank;

constexpr double kScale = 0.7;
constexpr int64_t kRank = 2;

// Of the rows of a weight [13, in] the first four have no adapter; the others have two.
const std::vector<LowRank::Rows> kModules = {{4, 6}, {10, 3}};

LowRank adapter_of(ops::Parameter& a, ops::Parameter& b) {
  return {.a = &a, .b = &b, .scale = kScale, .modules = kModules};
}

// W + s B A, module by module.
at::Tensor sum_of(const at::Tensor& weight, const at::Tensor& a, const at::Tensor& b) {
  const auto product = [&](int64_t row, int64_t rows, int64_t column) {
    return b.narrow(0, row, rows).matmul(a.narrow(0, column, kRank));
  };
  return weight + kScale * at::cat({at::zeros({4, weight.size(1)}, weight.options()),
                                    product(0, 6, 0), product(6, 3, kRank)});
}

// More tokens than columns, fewer, and as many rows as a merged backward pass takes.
TEST(LowRank, is_the_product_with_the_sum_of_both) {
  std::deque<LowRank> adapters;  // until backward passes are done
  for (const int64_t tokens : {1, 5, 9, 40}) {
    for (const bool biased : {false, true}) {
      const OpCase composed{.name = std::to_string(tokens),
                            .op = "linear",
                            .inputs = {normal({tokens, 8}, 1), normal({13, 8}, 2),
                                       normal({4, 8}, 3), normal({9, kRank}, 4)},
                            .parameters = {normal({13}, 5)},
                            .run = [&](const Tensors& x, const Parameters& p) {
                              const at::Tensor y = x[0].matmul(sum_of(x[1], x[2], x[3]).t());
                              return biased ? y + p[0]->value() : y;
                            }};
      OpCase fused{.name = composed.name,
                   .op = "linear",
                   .inputs = {composed.inputs[0]},
                   .parameters = {composed.inputs[1], composed.inputs[2], composed.inputs[3],
                                  composed.parameters[0]},
                   .run = [&](const Tensors& x, const Parameters& p) {
                     adapters.push_back(adapter_of(*p[1], *p[2]));
                     return ops::adapted_linear(x[0], *p[0], biased ? p[3].get() : nullptr,
                                                adapters.back());
                   }};
      SCOPED_TRACE(composed.name + (biased ? " biased" : ""));
      const OpResult exact = evaluate(composed, at::kDouble), got = evaluate(fused, at::kDouble);
      expect_close(got.output, exact.output, 1e-13, "y");
      expect_close(got.input_grads[0], exact.input_grads[0], 1e-13, "dx");
      expect_close(got.parameter_grads[0], exact.input_grads[1], 1e-13, "dW");
      expect_close(got.parameter_grads[1], exact.input_grads[2], 1e-13, "dA");
      expect_close(got.parameter_grads[2], exact.input_grads[3], 1e-13, "dB");
    }
  }
}

// Rows of x sorted by expert; the second one has none.
TEST(LowRank, of_experts_is_that_of_each_alone) {
  const std::vector<int64_t> counts = {3, 0, 9};
  const at::Tensor a = normal({3, 4, 8}, 1), b = normal({3, 9, kRank}, 2);
  ops::Parameter all_a("a", a.clone()), all_b("b", b.clone());
  all_a.attach_grad(at::zeros_like(a));
  all_b.attach_grad(at::zeros_like(b));
  const LowRank together = adapter_of(all_a, all_b);
  const at::Tensor x = normal({12, 8}, 3).requires_grad_(true), cotangent = normal({12, 13}, 4);
  const at::Tensor y = ops::grouped_low_rank(x, counts, 13, together);
  (y * cotangent).sum().backward();
  int64_t first = 0;
  for (int64_t e = 0; e < 3; ++e) {
    const int64_t rows = counts[static_cast<size_t>(e)];
    const at::Tensor own_x = x.detach().narrow(0, first, rows).clone().requires_grad_(true);
    const at::Tensor own_a = a[e].clone().requires_grad_(true),
                     own_b = b[e].clone().requires_grad_(true);
    const at::Tensor own_y =
        own_x.matmul(sum_of(at::zeros({13, 8}, at::kDouble), own_a, own_b).t());
    (own_y * cotangent.narrow(0, first, rows)).sum().backward();
    expect_close(y.narrow(0, first, rows), own_y, 1e-13, "y");
    expect_close(x.grad().narrow(0, first, rows), own_x.grad(), 1e-13, "dx");
    expect_close(all_a.grad()[e], own_a.grad(), 1e-13, "dA");
    expect_close(all_b.grad()[e], own_b.grad(), 1e-13, "dB");
    first += rows;
  }
}

// The rule by loops: sum over tokens of y x, less the mean of y^2 times W, columns of length 1.
at::Tensor plain_change(const at::Tensor& weight, const at::Tensor& x, const at::Tensor& y) {
  const int64_t out = weight.size(0), in = weight.size(1), tokens = x.size(0);
  at::Tensor change = at::zeros({out, in}, at::kDouble);
  auto to = change.accessor<double, 2>();
  const auto w = weight.accessor<double, 2>(), from = x.accessor<double, 2>(),
             answer = y.accessor<double, 2>();
  for (int64_t i = 0; i < in; ++i) {
    double squares = 0;
    for (int64_t o = 0; o < out; ++o) {
      double both = 0, power = 0;
      for (int64_t t = 0; t < tokens; ++t) {
        both += answer[t][o] * from[t][i];
        power += answer[t][o] * answer[t][o] / static_cast<double>(tokens);
      }
      to[o][i] = both - power * w[o][i];
      squares += to[o][i] * to[o][i];
    }
    for (int64_t o = 0; o < out; ++o) to[o][i] /= std::sqrt(squares);
  }
  return change;
}

TEST(LocalLowRank, leaves_the_change_of_its_rule) {
  const at::Tensor weight = normal({13, 8}, 1), a = normal({4, 8}, 2), b = normal({9, kRank}, 3),
                   x = normal({7, 8}, 4);
  ops::Parameter frozen("w", weight), down("a", a), up("b", b);
  down.attach_grad(at::zeros_like(a));
  up.attach_grad(at::zeros_like(b));
  const LowRank adapter = adapter_of(down, up);
  {
    const at::NoGradGuard no_grad;
    ops::locally_adapted_linear(x, frozen, nullptr, adapter);
  }
  EXPECT_EQ(down.grad().abs().max().item<double>(), 0.0);
  // Two microbatches add up.
  at::Tensor wanted_a = at::zeros_like(a), wanted_b = at::zeros_like(b);
  for (const at::Tensor& seen : {x, normal({5, 8}, 5)}) {
    const at::Tensor y = ops::locally_adapted_linear(seen, frozen, nullptr, adapter);
    EXPECT_FALSE(y.requires_grad());
    expect_close(y, seen.matmul(sum_of(weight, a, b).t()), 1e-13, "y");
    for (const int64_t module : {0, 1}) {
      const int64_t row = module == 0 ? 0 : 6, rows = module == 0 ? 6 : 3;
      const at::Tensor own_a = a.narrow(0, module * kRank, kRank), own_b = b.narrow(0, row, rows);
      const at::Tensor z = kScale * seen.matmul(own_a.t());
      wanted_a.narrow(0, module * kRank, kRank).add_(plain_change(own_a, seen, z));
      wanted_b.narrow(0, row, rows).add_(plain_change(own_b, z, z.matmul(own_b.t())));
    }
  }
  expect_close(down.grad(), wanted_a, 1e-12, "A");
  expect_close(up.grad(), wanted_b, 1e-12, "B");
}

}  // namespace
}  // namespace qianli::testing
