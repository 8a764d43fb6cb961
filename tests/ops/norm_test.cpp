#include "qianli/ops/norm.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/rsqrt.h>
#include <gtest/gtest.h>

#include "tests/ops/op_harness.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

TEST(RmsNorm, plain_and_with_residual) {
  // No tiny widths: there the gradient is the small difference of large terms, and float32 has no
  // say.
  for (const int64_t width : {7, 8, 33, 257}) {
    check_all({.name = "plain " + std::to_string(width),
               .op = "rms_norm",
               .inputs = {normal({5, width}, 1)},
               .parameters = {normal({width}, 2)},
               .run = [](const Tensors& x, const Parameters& p) {
                 return ops::rms_norm(x[0], *p[0], 1e-5);
               }});
    check_all({.name = "residual " + std::to_string(width),
               .op = "rms_norm",
               .inputs = {normal({5, width}, 1), normal({5, width}, 3)},
               .parameters = {normal({width}, 2)},
               .run = [](const Tensors& x, const Parameters& p) {
                 const auto [y, sum] = ops::add_rms_norm(x[0], x[1], *p[0], 1e-5);
                 return at::cat({y, sum * 0.5}, 1);
               }});
  }
}

TEST(RmsNorm, norms_each_head_of_a_strided_view) {
  check_all({.name = "heads",
             .op = "rms_norm",
             .inputs = {normal({6, 40}, 1)},
             .parameters = {normal({8}, 2)},
             .run = [](const Tensors& x, const Parameters& p) {
               return ops::rms_norm(x[0].narrow(1, 8, 24).unflatten(1, {3, 8}), *p[0], 1e-6);
             }});
}

TEST(LayerNorm, plain_and_with_residual) {
  for (const int64_t width : {7, 8, 33, 257}) {
    check_all(
        {.name = "plain " + std::to_string(width),
         .op = "layer_norm",
         .inputs = {normal({5, width}, 1) + 3.0},
         .parameters = {normal({width}, 2), normal({width}, 4)},
         .run = [](const Tensors& x,
                   const Parameters& p) { return ops::layer_norm(x[0], *p[0], p[1].get(), 1e-5); },
         .float_tolerance = 1e-5,
         .bfloat16_tolerance = 5e-2});
    check_all({.name = "residual " + std::to_string(width),
               .op = "layer_norm",
               .inputs = {normal({5, width}, 1), normal({5, width}, 3)},
               .parameters = {normal({width}, 2), normal({width}, 4)},
               .run =
                   [](const Tensors& x, const Parameters& p) {
                     const auto [y, sum] = ops::add_layer_norm(x[0], x[1], *p[0], p[1].get(), 1e-5);
                     return at::cat({y, sum * 0.5}, 1);
                   },
               .float_tolerance = 1e-5,
               .bfloat16_tolerance = 5e-2});
  }
}

TEST(RmsNorm, of_a_weight_around_zero) {
  const auto kind = ops::NormWeight::kZeroCentered;
  for (const int64_t width : {8, 33}) {
    check_all({.name = "plain " + std::to_string(width),
               .op = "rms_norm",
               .inputs = {normal({5, width}, 1)},
               .parameters = {normal({width}, 2) * 0.3},
               .run = [kind](const Tensors& x, const Parameters& p) {
                 return ops::rms_norm(x[0], *p[0], 1e-5, kind);
               }});
    check_all({.name = "residual " + std::to_string(width),
               .op = "rms_norm",
               .inputs = {normal({5, width}, 1), normal({5, width}, 3)},
               .parameters = {normal({width}, 2) * 0.3},
               .run = [kind](const Tensors& x, const Parameters& p) {
                 const auto [y, sum] = ops::add_rms_norm(x[0], x[1], *p[0], 1e-5, kind);
                 return at::cat({y, sum * 0.5}, 1);
               }});
  }
}

// The product with 1 + w is rounded once, from float32; the plain norm rounds before it multiplies.
TEST(RmsNorm, of_a_weight_around_zero_rounds_once) {
  const at::Tensor x = normal({4, 16}, 1).to(at::kBFloat16),
                   w = (normal({16}, 2) * 0.3).to(at::kBFloat16);
  ops::Parameter weight("weight", w);
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor expected =
      (wide * at::rsqrt(wide.square().mean(-1, true) + 1e-6) * (1.0 + w.to(at::kFloat)))
          .to(at::kBFloat16);
  EXPECT_TRUE(ops::reference::rms_norm(x, w, 1e-6, ops::NormWeight::kZeroCentered).equal(expected));
  expect_close(ops::rms_norm(x, weight, 1e-6, ops::NormWeight::kZeroCentered), expected, 4e-3);
}

TEST(LayerNorm, without_bias) {
  check_all({.name = "plain",
             .op = "layer_norm",
             .inputs = {normal({5, 33}, 1)},
             .parameters = {normal({33}, 2)},
             .run = [](const Tensors& x,
                       const Parameters& p) { return ops::layer_norm(x[0], *p[0], nullptr, 1e-5); },
             .float_tolerance = 1e-5,
             .bfloat16_tolerance = 5e-2});
  check_all({.name = "residual",
             .op = "layer_norm",
             .inputs = {normal({5, 33}, 1), normal({5, 33}, 3)},
             .parameters = {normal({33}, 2)},
             .run =
                 [](const Tensors& x, const Parameters& p) {
                   const auto [y, sum] = ops::add_layer_norm(x[0], x[1], *p[0], nullptr, 1e-5);
                   return at::cat({y, sum * 0.5}, 1);
                 },
             .float_tolerance = 1e-5,
             .bfloat16_tolerance = 5e-2});
}

TEST(Norms, with_a_weight_for_every_head) {
  check_all({.name = "layer norm",
             .op = "layer_norm",
             .inputs = {normal({7, 60}, 1)},
             .parameters = {normal({3, 12}, 2)},
             .run =
                 [](const Tensors& x, const Parameters& p) {
                   return ops::layer_norm(x[0].narrow(1, 12, 36).unflatten(1, {3, 12}), *p[0],
                                          nullptr, 1e-5);
                 },
             .float_tolerance = 1e-5,
             .bfloat16_tolerance = 5e-2});
  check_all({.name = "rms norm",
             .op = "rms_norm",
             .inputs = {normal({300, 2, 9}, 1)},
             .parameters = {normal({2, 9}, 2)},
             .run = [](const Tensors& x, const Parameters& p) {
               return ops::rms_norm(x[0], *p[0], 1e-5);
             }});
  ops::Parameter wrong("weight", normal({3, 9}, 1).to(at::kFloat));
  EXPECT_THROW(ops::rms_norm(normal({4, 2, 9}, 2).to(at::kFloat), wrong, 1e-5), c10::Error);
}

TEST(GatedRmsNorm, in_both_places_and_by_groups) {
  for (const auto place : {ops::GatePlace::kAfterNorm, ops::GatePlace::kBeforeNorm}) {
    const std::string name = place == ops::GatePlace::kAfterNorm ? "after" : "before";
    check_all({.name = name + ", one weight",
               .op = "gated_rms_norm",
               .inputs = {normal({5, 3, 20}, 1), normal({5, 3, 20}, 2)},
               .parameters = {normal({20}, 3)},
               .run =
                   [place](const Tensors& x, const Parameters& p) {
                     return ops::gated_rms_norm(x[0], x[1], *p[0], 1e-5, place);
                   },
               .float_tolerance = 5e-6});
    // The gate is a slice of a wider projection, as in Mamba-2.
    check_all({.name = name + ", groups",
               .op = "gated_rms_norm",
               .inputs = {normal({140, 34}, 1), normal({140, 50}, 2)},
               .parameters = {normal({2, 17}, 3)},
               .run =
                   [place](const Tensors& x, const Parameters& p) {
                     const at::Tensor gate = x[1].narrow(1, 5, 34);
                     return ops::gated_rms_norm(x[0].unflatten(1, {2, 17}),
                                                gate.unflatten(1, {2, 17}), *p[0], 1e-5, place);
                   },
               .float_tolerance = 5e-6});
    check_all({.name = name + ", rows",
               .op = "gated_rms_norm",
               .inputs = {normal({4, 40}, 1), normal({4, 60}, 2)},
               .parameters = {normal({40}, 3)},
               .run =
                   [place](const Tensors& x, const Parameters& p) {
                     return ops::gated_rms_norm(x[0], x[1].narrow(1, 20, 40), *p[0], 1e-5, place);
                   },
               .float_tolerance = 5e-6});
  }
}

}  // namespace
}  // namespace qianli::testing
