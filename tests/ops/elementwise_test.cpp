#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "qianli/ops/activation.h"
#include "qianli/ops/rotary.h"
#include "tests/ops/op_harness.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

ops::RotaryTable table_for(const at::Tensor& x, int64_t half) {
  const auto dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor angles =
      at::arange(32, at::kDouble).unsqueeze(1) * (0.1 + at::arange(half, at::kDouble));
  return {angles.cos().to(dtype), angles.sin().to(dtype)};
}

at::Tensor ids(std::vector<int64_t> values) { return at::tensor(values, at::kLong); }

TEST(Rotary, turns_half_pairs_and_passes_the_rest) {
  for (const int64_t half : {4, 2}) {
    check_all({.name = "half " + std::to_string(half),
               .op = "rotary",
               .inputs = {normal({5, 3, 8}, 1)},
               .run = [half](const Tensors& x, const Parameters&) {
                 return ops::rotary(x[0], table_for(x[0], half), ids({0, 1, 2, 31, 1}));
               }});
  }
}

TEST(Rotary, turns_pairs_of_both_kinds_anywhere_in_a_head) {
  for (const bool interleaved : {false, true}) {
    for (const auto& [offset, half] :
         {std::pair<int64_t, int64_t>{0, 6}, {0, 3}, {5, 3}, {2, 18}}) {
      const ops::RotaryPairs pairs{.interleaved = interleaved, .offset = offset};
      const int64_t dim = std::max<int64_t>(12, offset + 2 * half);
      check_all({.name = (interleaved ? "interleaved " : "half ") + std::to_string(offset) + "+" +
                         std::to_string(half),
                 .op = "rotary",
                 .inputs = {normal({5, 3, dim}, 1)},
                 .run = [=](const Tensors& x, const Parameters&) {
                   return ops::rotary(x[0], table_for(x[0], half), ids({0, 1, 2, 31, 1}), pairs);
                 }});
      // One head out of the middle of a projection, as MLA's shared key.
      check_all({.name = "slice",
                 .op = "rotary",
                 .inputs = {normal({5, 3 * dim + 1}, 1)},
                 .run = [=](const Tensors& x, const Parameters&) {
                   const at::Tensor view =
                       x[0].narrow(1, 1, 3 * dim).unflatten(1, {3, dim}).narrow(1, 1, 2);
                   return ops::rotary(view, table_for(x[0], half), ids({0, 1, 2, 31, 1}), pairs);
                 }});
    }
  }
}

// models.md: permuting the rows of an interleaved head gives the half style.
TEST(Rotary, kinds_agree_after_a_permutation) {
  const int64_t half = 5;
  const at::Tensor x = normal({4, 2, 2 * half}, 1).to(at::kFloat), places = ids({3, 0, 7, 20});
  const auto to_halves = [&](const at::Tensor& t) {
    return t.unflatten(2, {half, 2}).transpose(2, 3).flatten(2);
  };
  const at::Tensor turned = ops::rotary(x, table_for(x, half), places, {.interleaved = true});
  expect_close(to_halves(turned), ops::rotary(to_halves(x), table_for(x, half), places), 1e-6);
}

TEST(Rotary, refuses_dimensions_beyond_the_head) {
  const at::Tensor x = normal({2, 1, 8}, 1).to(at::kFloat);
  EXPECT_THROW(ops::rotary(x, table_for(x, 3), ids({0, 1}), {.offset = 3}), c10::Error);
}

TEST(Activation, plain_and_gated_of_every_kind) {
  using Kind = ops::ActivationKind;
  for (const Kind kind : {Kind::kSilu, Kind::kGelu, Kind::kGeluTanh, Kind::kRelu}) {
    const std::string name = std::to_string(static_cast<int>(kind));
    check_all({.name = "plain " + name,
               .op = "activation",
               .inputs = {normal({5, 19}, 1) * 3.0},
               .run = [kind](const Tensors& x, const Parameters&) {
                 return ops::activation(x[0], kind);
               }});
    check_all({.name = "gated " + name,
               .op = "activation",
               .inputs = {normal({5, 38}, 1) * 3.0},
               .run = [kind](const Tensors& x, const Parameters&) {
                 return ops::gated_activation(x[0], kind);
               }});
  }
}

TEST(Activation, squared_relu_clamps_and_limits) {
  using Kind = ops::ActivationKind;
  check_all({.name = "relu2",
             .op = "activation",
             .inputs = {normal({5, 19}, 1) * 3.0},
             .run = [](const Tensors& x, const Parameters&) {
               return ops::activation(x[0], Kind::kRelu2);
             }});
  for (const Kind kind : {Kind::kSilu, Kind::kGeluTanh, Kind::kRelu2, Kind::kClampedSwiglu}) {
    for (const double limit : {0.0, 1.5}) {
      check_all({.name = "gated " + std::to_string(static_cast<int>(kind)) + ", limit " +
                         std::to_string(limit),
                 .op = "activation",
                 .inputs = {normal({5, 38}, 1) * 3.0},
                 .run = [=](const Tensors& x, const Parameters&) {
                   return ops::gated_activation(x[0], kind, limit);
                 }});
    }
  }
  EXPECT_THROW(ops::activation(normal({2, 4}, 1), Kind::kClampedSwiglu), c10::Error);
}

// gpt-oss: gate 9 and up -8 are clamped to 7 and -7.
TEST(Activation, clamped_swiglu_by_hand) {
  const at::Tensor x = at::tensor({9.0, 1.0, -8.0, 0.5}, at::kDouble).view({1, 4});
  const at::Tensor y = ops::gated_activation(x, ops::ActivationKind::kClampedSwiglu, 7.0);
  EXPECT_NEAR(y[0][0].item<double>(), (-7.0 + 1.0) * 7.0 / (1.0 + std::exp(-1.702 * 7.0)), 1e-12);
  EXPECT_NEAR(y[0][1].item<double>(), (0.5 + 1.0) * 1.0 / (1.0 + std::exp(-1.702)), 1e-12);
}

}  // namespace
}  // namespace qianli::testing
