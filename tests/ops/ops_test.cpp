#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/device/allocator.h"
#include "qianli/ops/activation.h"
#include "qianli/ops/adamw.h"
#include "qianli/ops/attention.h"
#include "qianli/ops/cross_entropy.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/embedding.h"
#include "qianli/ops/linear.h"
#include "qianli/ops/norm.h"
#include "qianli/ops/rotary.h"
#include "tests/ops/op_harness.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

at::Tensor ids(std::vector<int64_t> values) { return at::tensor(values, at::kLong); }

TEST(Embedding, gathers_rows_and_adds_gradients_of_equal_ids) {
  check_all({.name = "embedding",
             .op = "embedding",
             .parameters = {normal({11, 13}, 1)},
             .run = [](const Tensors&, const Parameters& p) {
               return ops::embedding(ids({3, 0, 10, 3, 3, 7}), *p[0]);
             }});
}

TEST(Embedding, refuses_an_id_outside_the_vocabulary) {
  ops::Parameter table("table", normal({4, 2}, 1).to(at::kFloat));
  EXPECT_THROW(ops::embedding(ids({0, 4}), table), DataError);
  EXPECT_THROW(ops::embedding(ids({-1}), table), DataError);
}

TEST(Linear, with_and_without_bias) {
  check_all({.name = "bias",
             .op = "linear",
             .inputs = {normal({7, 5}, 1)},
             .parameters = {normal({6, 5}, 2), normal({6}, 3)},
             .run = [](const Tensors& x, const Parameters& p) { return ops::linear(x[0], *p[0], p[1].get()); }});
  check_all({.name = "no bias",
             .op = "linear",
             .inputs = {normal({1, 33}, 1)},
             .parameters = {normal({17, 33}, 2)},
             .run = [](const Tensors& x, const Parameters& p) { return ops::linear(x[0], *p[0]); }});
}

TEST(Linear, a_weight_used_twice_gets_both_gradients) {
  check_all({.name = "twice",
             .op = "linear",
             .inputs = {normal({4, 6}, 1)},
             .parameters = {normal({6, 6}, 2)},
             .run = [](const Tensors& x, const Parameters& p) {
               return ops::linear(ops::linear(x[0], *p[0]), *p[0]);
             }});
}

TEST(Linear, a_frozen_weight_still_passes_the_gradient_on) {
  ops::Parameter frozen("frozen", normal({3, 4}, 1));
  const at::Tensor x = normal({2, 4}, 2).requires_grad_(true);
  ops::linear(x, frozen).sum().backward();
  expect_close(x.grad(), frozen.value().sum(0, true).expand({2, 4}), 1e-12);
}

TEST(RmsNorm, plain_and_with_residual) {
  // No tiny widths: there the gradient is the small difference of large terms, and float32 has no say.
  for (const int64_t width : {7, 8, 33, 257}) {
    check_all({.name = "plain " + std::to_string(width),
               .op = "rms_norm",
               .inputs = {normal({5, width}, 1)},
               .parameters = {normal({width}, 2)},
               .run = [](const Tensors& x, const Parameters& p) { return ops::rms_norm(x[0], *p[0], 1e-5); }});
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
    check_all({.name = "plain " + std::to_string(width),
               .op = "layer_norm",
               .inputs = {normal({5, width}, 1) + 3.0},
               .parameters = {normal({width}, 2), normal({width}, 4)},
               .run = [](const Tensors& x, const Parameters& p) { return ops::layer_norm(x[0], *p[0], *p[1], 1e-5); },
               .float_tolerance = 1e-5,
               .bfloat16_tolerance = 5e-2});
    check_all({.name = "residual " + std::to_string(width),
               .op = "layer_norm",
               .inputs = {normal({5, width}, 1), normal({5, width}, 3)},
               .parameters = {normal({width}, 2), normal({width}, 4)},
               .run = [](const Tensors& x, const Parameters& p) {
                 const auto [y, sum] = ops::add_layer_norm(x[0], x[1], *p[0], *p[1], 1e-5);
                 return at::cat({y, sum * 0.5}, 1);
               },
               .float_tolerance = 1e-5,
               .bfloat16_tolerance = 5e-2});
  }
}

ops::RotaryTable table_for(const at::Tensor& x, int64_t half) {
  const auto dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor angles = at::arange(32, at::kDouble).unsqueeze(1) * (0.1 + at::arange(half, at::kDouble));
  return {angles.cos().to(dtype), angles.sin().to(dtype)};
}

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

TEST(Activation, plain_and_gated_of_every_kind) {
  using Kind = ops::ActivationKind;
  for (const Kind kind : {Kind::kSilu, Kind::kGelu, Kind::kGeluTanh, Kind::kRelu}) {
    const std::string name = std::to_string(static_cast<int>(kind));
    check_all({.name = "plain " + name,
               .op = "activation",
               .inputs = {normal({5, 19}, 1) * 3.0},
               .run = [kind](const Tensors& x, const Parameters&) { return ops::activation(x[0], kind); }});
    check_all({.name = "gated " + name,
               .op = "activation",
               .inputs = {normal({5, 38}, 1) * 3.0},
               .run = [kind](const Tensors& x, const Parameters&) { return ops::gated_activation(x[0], kind); }});
  }
}

struct AttentionShape {
  std::string name;
  int64_t heads, key_heads, dim;
  ops::AttentionLayout layout;
};

TEST(Attention, causal_packed_grouped_and_windowed) {
  const std::vector<AttentionShape> shapes = {
      {"one sequence", 2, 2, 8, {.q_starts = {0, 7}, .k_starts = {0, 7}, .scale = 0.3}},
      {"packed", 4, 2, 16, {.q_starts = {0, 1, 6, 13}, .k_starts = {0, 1, 6, 13}, .scale = 0.25}},
      {"long", 2, 1, 64, {.q_starts = {0, 150}, .k_starts = {0, 150}, .scale = 0.125}},
      {"window", 3, 3, 8, {.q_starts = {0, 9, 40}, .k_starts = {0, 9, 40}, .window = 4, .scale = 0.35}},
      {"not causal", 2, 1, 8, {.q_starts = {0, 5}, .k_starts = {0, 5}, .causal = false, .scale = 0.35}},
      {"decoding", 4, 2, 8, {.q_starts = {0, 2}, .k_starts = {0, 11}, .scale = 0.35}},
  };
  for (const auto& shape : shapes) {
    const int64_t q_rows = shape.layout.q_starts.back(), k_rows = shape.layout.k_starts.back();
    check_all({.name = shape.name,
               .op = "attention",
               .inputs = {normal({q_rows, shape.heads, shape.dim}, 1), normal({k_rows, shape.key_heads, shape.dim}, 2),
                          normal({k_rows, shape.key_heads, shape.dim}, 3)},
               .run = [layout = shape.layout](const Tensors& x, const Parameters&) {
                 return ops::attention(x[0], x[1], x[2], layout);
               },
               .float_tolerance = 5e-6,
               .bfloat16_tolerance = 4e-2});
  }
}

TEST(CrossEntropy, equals_the_reference_on_counted_rows) {
  check_all({.name = "cross entropy",
             .op = "cross_entropy",
             .inputs = {normal({9, 6}, 1)},
             .parameters = {normal({37, 6}, 2)},
             .run = [](const Tensors& x, const Parameters& p) {
               const at::Tensor weights = at::tensor({1.0, 0.5, 0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 0.25}, at::kDouble);
               const auto dtype = x[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
               // Row 2 has weight 0 and a label that does not exist.
               return ops::linear_cross_entropy(x[0], *p[0], ids({0, 36, -100, 5, 5, 1, 0, 20, 7}), weights.to(dtype)).loss;
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

TEST(AdamW, equals_the_reference) {
  const int64_t n = 1003;
  for (const bool low_precision : {false, true}) {
    Tensors fast, exact;
    for (uint64_t i = 0; i < 4; ++i) {
      const at::Tensor value = i == 3 ? normal({n}, i).abs() : normal({n}, i);
      fast.push_back(value.to(at::kFloat));
      exact.push_back(fast.back().to(at::kDouble));
    }
    at::Tensor copy = low_precision ? at::zeros({n}, at::kBFloat16) : at::Tensor();
    const ops::AdamWStep step{.lr = 0.01, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .step = 3, .grad_scale = 0.5};
    ops::adamw(fast[0], fast[1], fast[2], fast[3], copy, step);
    ops::reference::adamw(exact[0], exact[1], exact[2], exact[3], {}, step);
    for (const size_t i : {0u, 2u, 3u}) expect_close(fast[i], exact[i], 1e-6);
    if (low_precision) {
      EXPECT_TRUE(copy.equal(fast[0].to(at::kBFloat16)));
    }
  }
}

TEST(SquaredNorm, is_exact_enough_for_many_elements) {
  const at::Tensor x = normal({100003}, 5).to(at::kFloat);
  EXPECT_NEAR(ops::squared_norm(x).item<double>(), ops::reference::squared_norm(x).item<double>(), 1e-6);
}

TEST(Dispatch, refuses_unknown_ops_and_back_ends) {
  EXPECT_THROW(ops::choose_backends({{"rmsnorm", "native"}}), ConfigError);
  EXPECT_THROW(ops::choose_backends({{"rms_norm", "fast"}}), ConfigError);
  ops::choose_backends({});
}

}  // namespace
}  // namespace qianli::testing
