#include "qianli/ops/cuda/flash_attention.h"

#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "qianli/device/device.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

using ops::AttentionLayout;
using ops::cuda::flash_arguments;

TEST(FlashArguments, follow_the_layout) {
  AttentionLayout layout{.q_starts = {0, 3, 3, 10}, .k_starts = {0, 5, 9, 16}, .causal = true};
  EXPECT_EQ(flash_arguments(layout).max_q, 7);
  EXPECT_EQ(flash_arguments(layout).max_k, 7);
  EXPECT_EQ(flash_arguments(layout).window_left, std::nullopt);
  EXPECT_EQ(flash_arguments(layout).window_right, std::nullopt);
  layout.window = 4;  // the key on the diagonal and three before it
  EXPECT_EQ(flash_arguments(layout).window_left, 3);
  EXPECT_EQ(flash_arguments(layout).window_right, 0);
  layout.causal = false;
  EXPECT_EQ(flash_arguments(layout).window_right, std::nullopt);
}

TEST(FlashArguments, keep_max_q_above_one_where_a_sequence_has_no_query) {
  const std::vector<int64_t> keys{0, 5, 9};
  EXPECT_EQ(flash_arguments({.q_starts = {0, 1, 2}, .k_starts = keys}).max_q, 1);
  EXPECT_EQ(flash_arguments({.q_starts = {0, 1, 1}, .k_starts = keys}).max_q, 2);
}

struct FlashCase {
  AttentionLayout layout;
  int64_t heads, key_heads, head_dim;
  int64_t value_dim = 0;  // 0: head_dim
  bool sinks = false;
};

std::vector<FlashCase> flash_cases() {
  const std::vector<int64_t> packed{0, 130, 131, 131, 300}, longer{0, 200, 210, 215, 400};
  return {{{packed, packed, true, 0, 0.125}, 4, 4, 64},
          {{packed, packed, true, 0, 0.1}, 8, 2, 128},
          {{packed, longer, true, 0, 0.125}, 4, 1, 64},
          {{packed, packed, false, 0, 0.125}, 4, 2, 40},
          {{packed, packed, true, 17, 0.125}, 4, 2, 64},
          {{packed, longer, true, 64, 0.125}, 6, 2, 80},
          {{{0, 1, 2}, {0, 90, 230}, true, 0, 0.125}, 8, 2, 64},
          {{{0, 1, 1}, {0, 90, 230}, true, 0, 0.125}, 8, 2, 64},
          {{packed, packed, true, 0, 0.07}, 4, 4, 192, 128},
          {{packed, longer, true, 17, 0.125}, 4, 2, 64, 0, true},
          {{{0, 1, 2}, {0, 90, 230}, true, 0, 0.125}, 8, 2, 64, 48, true}};
}

TEST(FlashAttention, equals_the_reference_with_all_gradients) {
  if (!device::CudaLibrary::get().available()) GTEST_SKIP() << device::CudaLibrary::get().why();
  for (const FlashCase& c : flash_cases()) {
    const auto options = at::TensorOptions().dtype(at::kBFloat16).device(at::kCUDA);
    const int64_t value_dim = c.value_dim > 0 ? c.value_dim : c.head_dim;
    const auto make = [&](int64_t rows, int64_t heads, int64_t dim) {
      return at::randn({rows, heads, dim}, options).requires_grad_(true);
    };
    const at::Tensor q = make(c.layout.q_starts.back(), c.heads, c.head_dim);
    const at::Tensor k = make(c.layout.k_starts.back(), c.key_heads, c.head_dim),
                     v = make(c.layout.k_starts.back(), c.key_heads, value_dim);
    ASSERT_TRUE(ops::cuda::flash_attention_serves(q, v, c.layout));
    ops::Parameter sinks("sinks", at::randn({c.heads}, options));
    sinks.attach_grad(at::zeros({c.heads}, options.dtype(at::kFloat)));
    ops::Parameter* given = c.sinks ? &sinks : nullptr;
    const at::Tensor grad = at::randn({q.size(0), c.heads, value_dim}, options);
    const at::Tensor out = ops::cuda::flash_attention(q, k, v, c.layout, given);
    out.backward(grad, /*retain_graph=*/true);
    const at::Tensor sink_grad = sinks.grad().clone();
    const std::vector<at::Tensor> first{q.grad().clone(), k.grad().clone(), v.grad().clone()};

    std::vector<at::Tensor> wide;
    for (const at::Tensor& x : {q, k, v})
      wide.push_back(x.detach().to(at::kDouble).requires_grad_(true));
    const at::Tensor wide_sinks = sinks.value().to(at::kDouble).requires_grad_(true);
    const at::Tensor expected = ops::reference::attention(wide[0], wide[1], wide[2], c.layout,
                                                          c.sinks ? wide_sinks : at::Tensor());
    expected.backward(grad.to(at::kDouble));
    if (c.sinks) expect_close(sink_grad, wide_sinks.grad(), 2e-2, "gradient of the sinks");
    expect_close(out, expected, 2e-2, "out");
    for (int i = 0; i < 3; ++i) expect_close(first[i], wide[i].grad(), 2e-2, "gradient");

    for (const at::Tensor& x : {q, k, v}) x.mutable_grad().reset();
    out.backward(grad);
    EXPECT_TRUE(q.grad().equal(first[0]) && k.grad().equal(first[1]) && v.grad().equal(first[2]))
        << "a repeated backward gives other bits";
  }
}

}  // namespace
}  // namespace qianli::testing
