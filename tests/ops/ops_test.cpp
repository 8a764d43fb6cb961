#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/ops/adamw.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/embedding.h"
#include "qianli/ops/linear.h"
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
             .run = [](const Tensors& x, const Parameters& p) {
               return ops::linear(x[0], *p[0], p[1].get());
             }});
  check_all(
      {.name = "no bias",
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
    const ops::AdamWStep step{.lr = 0.01,
                              .beta1 = 0.9,
                              .beta2 = 0.95,
                              .eps = 1e-8,
                              .weight_decay = 0.1,
                              .step = 3,
                              .grad_scale = 0.5};
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
  EXPECT_NEAR(ops::squared_norm(x).item<double>(), ops::reference::squared_norm(x).item<double>(),
              1e-6);
}

TEST(Dispatch, refuses_unknown_ops_and_back_ends) {
  EXPECT_THROW(ops::choose_backends({{"rmsnorm", "native"}}), ConfigError);
  EXPECT_THROW(ops::choose_backends({{"rms_norm", "fast"}}), ConfigError);
  ops::choose_backends({});
}

}  // namespace
}  // namespace qianli::testing
