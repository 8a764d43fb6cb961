#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "qianli/ops/dispatch.h"
#include "qianli/ops/grouped_linear.h"
#include "qianli/ops/permute.h"
#include "tests/ops/op_harness.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

at::Tensor choices(std::vector<int64_t> values, int64_t slots) {
  return at::tensor(values, at::kLong).view({-1, slots});
}

// Experts 0 and 3 have no rows; more rows and outputs than one block of the kernels.
const std::vector<int64_t> kCounts = {0, 3, 1, 0, 70};

TEST(GroupedLinear, with_and_without_bias) {
  check_all({.name = "bias",
             .op = "grouped_linear",
             .inputs = {normal({74, 9}, 1)},
             .parameters = {normal({5, 13, 9}, 2), normal({5, 13}, 3)},
             .run = [](const Tensors& x, const Parameters& p) {
               return ops::grouped_linear(x[0], kCounts, *p[0], p[1].get());
             }});
  check_all({.name = "no bias",
             .op = "grouped_linear",
             .inputs = {normal({74, 33}, 1)},
             .parameters = {normal({5, 200, 33}, 2)},
             .run = [](const Tensors& x, const Parameters& p) {
               return ops::grouped_linear(x[0], kCounts, *p[0]);
             }});
}

TEST(GroupedLinear, no_rows_at_all) {
  ops::Parameter weight("weight", normal({2, 3, 4}, 1).to(at::kFloat));
  weight.attach_grad(at::zeros({2, 3, 4}).fill_(7.0));
  const at::Tensor x = at::zeros({0, 4}).requires_grad_(true);
  const at::Tensor y = ops::grouped_linear(x, {0, 0}, weight);
  EXPECT_EQ(y.sizes(), at::IntArrayRef({0, 3}));
  y.sum().backward();
  EXPECT_EQ(weight.grad().abs().max().item<float>(), 0.0f);
}

TEST(GroupedLinear, a_weight_used_twice_gets_both_gradients) {
  check_all({.name = "twice",
             .op = "grouped_linear",
             .inputs = {normal({74, 6}, 1)},
             .parameters = {normal({5, 6, 6}, 2)},
             .run = [](const Tensors& x, const Parameters& p) {
               return ops::grouped_linear(ops::grouped_linear(x[0], kCounts, *p[0]), kCounts,
                                          *p[0]);
             }});
}

TEST(GroupedLinear, a_frozen_weight_still_passes_the_gradient_on) {
  ops::Parameter frozen("frozen", normal({2, 3, 4}, 1));
  const at::Tensor x = normal({3, 4}, 2).requires_grad_(true);
  ops::grouped_linear(x, {1, 2}, frozen).sum().backward();
  expect_close(x.grad().select(0, 0), frozen.value().select(0, 0).sum(0), 1e-12);
  expect_close(x.grad().select(0, 2), frozen.value().select(0, 1).sum(0), 1e-12);
}

TEST(GroupedLinear, torch_back_end_equals_the_reference_in_float32) {
  OpCase op_case{.name = "torch",
                 .op = "grouped_linear",
                 .inputs = {normal({74, 9}, 1)},
                 .parameters = {normal({5, 13, 9}, 2), normal({5, 13}, 3)},
                 .run = [](const Tensors& x, const Parameters& p) {
                   return ops::grouped_linear(x[0], kCounts, *p[0], p[1].get());
                 }};
  ops::choose_backends({{"grouped_linear", "torch"}});
  const OpResult torch = evaluate(op_case, at::kFloat);
  ops::choose_backends({{"grouped_linear", "reference"}});
  const OpResult exact = evaluate(op_case, at::kDouble);
  ops::choose_backends({});
  expect_close(torch.output, exact.output, 2e-6);
  expect_close(torch.input_grads[0], exact.input_grads[0], 2e-6);
  for (const size_t i : {0u, 1u}) {
    expect_close(torch.parameter_grads[i], exact.parameter_grads[i], 2e-6);
  }
}

TEST(GroupedLinear, refuses_counts_that_do_not_fit) {
  ops::Parameter weight("weight", normal({2, 3, 4}, 1));
  EXPECT_THROW(ops::grouped_linear(normal({3, 4}, 1), {1, 1}, weight), std::invalid_argument);
  EXPECT_THROW(ops::grouped_linear(normal({3, 4}, 1), {3}, weight), std::invalid_argument);
  EXPECT_THROW(ops::grouped_linear(normal({3, 5}, 1), {1, 2}, weight), std::invalid_argument);
}

// The example of the Megatron documents: t0 to {0, 2}, t1 to {1, 2}, t2 to {0, 3}.
TEST(RowPlan, sorts_rows_by_expert_then_token) {
  const ops::RowPlan plan = ops::plan_rows(choices({0, 2, 1, 2, 0, 3}, 2), 4);
  EXPECT_TRUE(plan.tokens.equal(at::tensor({0, 2, 1, 0, 1, 2}, at::kLong)));
  EXPECT_TRUE(plan.rows.equal(choices({0, 3, 2, 4, 1, 5}, 2)));
  EXPECT_EQ(plan.counts, (std::vector<int64_t>{2, 1, 2, 1}));
  EXPECT_FALSE(plan.padded);
}

TEST(RowPlan, leaves_out_dropped_choices_and_zero_experts) {
  const ops::RowPlan plan = ops::plan_rows(choices({1, -1, 5, 1, 4, 9}, 2), 4);
  EXPECT_TRUE(plan.tokens.equal(at::tensor({0, 1}, at::kLong)));
  EXPECT_TRUE(plan.rows.equal(choices({0, -1, -1, 1, -1, -1}, 2)));
  EXPECT_EQ(plan.counts, (std::vector<int64_t>{0, 2, 0, 0}));
}

TEST(RowPlan, pads_every_expert_to_the_same_number) {
  const ops::RowPlan plan = ops::plan_rows(choices({1, -1, 2, 1}, 2), 3, 2);
  EXPECT_EQ(plan.counts, (std::vector<int64_t>{2, 2, 2}));
  EXPECT_TRUE(plan.rows.equal(choices({2, -1, 4, 3}, 2)));
  EXPECT_TRUE(plan.tokens.equal(at::tensor({0, 0, 0, 1, 1, 0}, at::kLong)));
  EXPECT_TRUE(plan.padded);
}

TEST(RowPlan, equals_the_reference) {
  at::Tensor random = (normal({40, 3}, 5) * 4.0).floor().to(at::kLong);  // some outside [0, 6)
  for (const int64_t rows_per_expert : {0, 120}) {
    const ops::RowPlan plan = ops::plan_rows(random, 6, rows_per_expert);
    const ops::RowPlan expected = ops::reference::plan_rows(random, 6, rows_per_expert);
    EXPECT_TRUE(plan.tokens.equal(expected.tokens));
    EXPECT_TRUE(plan.rows.equal(expected.rows));
    EXPECT_EQ(plan.counts, expected.counts);
    EXPECT_EQ(plan.padded, expected.padded);
  }
}

// Token 1 has one choice without a row, token 3 two; padded, there are rows of no choice too.
at::Tensor some_choices() { return choices({0, 2, 1, -1, 2, 0, 7, -1, 1, 2}, 2); }

TEST(Permute, gathers_rows) {
  for (const int64_t rows_per_expert : {0, 4}) {
    const ops::RowPlan plan = ops::plan_rows(some_choices(), 4, rows_per_expert);
    check_all({.name = "gather",
               .op = "permute",
               .inputs = {normal({5, 11}, 1)},
               .run = [plan](const Tensors& x, const Parameters&) {
                 // As behind combine_rows: rows of no choice get no gradient.
                 const at::Tensor y = ops::gather_rows(x[0], plan);
                 at::Tensor used = at::zeros({y.size(0), 1}, y.options());
                 used.index_fill_(0, plan.rows.masked_select(plan.rows.ge(0)), 1.0);
                 return y * used;
               }});
  }
}

TEST(Permute, combines_rows) {
  for (const int64_t rows_per_expert : {0, 4}) {
    const ops::RowPlan plan = ops::plan_rows(some_choices(), 4, rows_per_expert);
    check_all({.name = "combine",
               .op = "permute",
               .inputs = {normal({plan.num_rows(), 11}, 1), normal({5, 2}, 2)},
               .run = [plan](const Tensors& x, const Parameters&) {
                 const bool exact = x[0].scalar_type() == at::kDouble;
                 return ops::combine_rows(x[0], exact ? x[1] : x[1].to(at::kFloat), plan);
               }});
  }
}

TEST(Permute, identity_experts_give_back_the_weighted_sum) {
  const ops::RowPlan plan = ops::plan_rows(some_choices(), 4);
  const at::Tensor x = normal({5, 8}, 1), weights = normal({5, 2}, 2);
  const at::Tensor y = ops::combine_rows(ops::gather_rows(x, plan), weights, plan);
  const at::Tensor kept = weights * plan.rows.ge(0).to(at::kDouble);
  expect_close(y, x * kept.sum(1, true), 1e-14);
}

TEST(Permute, no_rows_at_all) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const ops::RowPlan plan = ops::plan_rows(choices({-1, 9}, 1), 4);
    const at::Tensor x = normal({2, 8}, 1).to(dtype).requires_grad_(true);
    const at::Tensor weights = normal({2, 1}, 2).to(dtype).requires_grad_(true);
    const at::Tensor y = ops::combine_rows(ops::gather_rows(x, plan), weights, plan);
    y.sum().backward();
    EXPECT_EQ(y.abs().max().item<double>(), 0.0);
    EXPECT_EQ(x.grad().abs().max().item<double>(), 0.0);
    EXPECT_EQ(weights.grad().abs().max().item<double>(), 0.0);
  }
}

}  // namespace
}  // namespace qianli::testing
