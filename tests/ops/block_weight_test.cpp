// Weights in blocks against the numbers that the blocks stand for.
#include "qianli/ops/block_weight.h"

#include <ATen/ops/abs.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "qianli/ops/embedding.h"
#include "qianli/ops/grouped_linear.h"
#include "qianli/ops/linear.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

using ops::BlockWeight;
using ops::Parameter;
using ops::cpu::BlockCode;

struct Blocks {
  std::shared_ptr<const BlockWeight> blocks;
  Parameter weight;

  Blocks(const at::Tensor& values, BlockCode code)
      : blocks(std::make_shared<const BlockWeight>(values, code)),
        weight("w", ops::as_value(blocks, values.sizes(), at::kFloat)) {}
};

// Rows whose rounding to 8 bits loses nothing: whole numbers, 127 among those of each block.
at::Tensor whole_rows(int64_t rows, int64_t columns) {
  at::Tensor x = at::randn({rows, columns}).mul_(40).round_().clamp_(-127, 127);
  for (int64_t i = 0; i < columns; i += 32) x.select(1, i).fill_(127);
  return x;
}

TEST(BlockWeight, computes_with_the_numbers_of_its_blocks) {
  for (const BlockCode code : {BlockCode::kQ8_0, BlockCode::kQ4_0}) {
    Blocks w(at::randn({37, 70}), code);
    const at::Tensor x = whole_rows(5, 70), exact = w.blocks->numbers(at::kDouble);
    Parameter bias("b", at::randn({37}));
    expect_close(ops::linear(x, w.weight, &bias),
                 ops::reference::linear(x.to(at::kDouble), exact, bias.value().to(at::kDouble)),
                 1e-6, "linear");
    const at::Tensor wide = x.to(at::kDouble);
    EXPECT_TRUE(at::equal(ops::linear(wide, w.weight), ops::reference::linear(wide, exact, {})));
    // A column of another view.
    expect_close(ops::linear(at::cat({x, x}, 1).narrow(1, 70, 70), w.weight),
                 ops::reference::linear(wide, exact, {}), 1e-6, "strided");
  }
}

TEST(BlockWeight, rounds_to_the_steps_of_its_blocks) {
  const at::Tensor values = at::randn({20, 64});
  const at::Tensor largest = values.abs().view({20, 2, 32}).amax(2, /*keepdim=*/true);
  const auto error = [&](BlockCode code) {
    const at::Tensor difference = BlockWeight(values, code).numbers(at::kFloat) - values;
    return (difference.abs().view({20, 2, 32}) / largest).max().item<double>();
  };
  // Half a step, and what the scale loses in half precision; in 4 bits the far end lacks a step.
  EXPECT_LE(error(BlockCode::kQ8_0), 0.5 / 127 + 0x1p-11);
  EXPECT_LE(error(BlockCode::kQ4_0), 1.0 / 8 + 0x1p-11);
  EXPECT_GT(error(BlockCode::kQ8_0), 0);
}

TEST(BlockWeight, groups_have_matrices_of_their_own) {
  Blocks w(at::randn({3, 20, 33}), BlockCode::kQ4_0);
  const at::Tensor x = whole_rows(6, 33), exact = w.blocks->numbers(at::kDouble);
  Parameter bias("b", at::randn({3, 20}));
  const std::vector<int64_t> counts{2, 0, 4};
  expect_close(ops::grouped_linear(x, counts, w.weight, &bias),
               ops::reference::grouped_linear(x.to(at::kDouble), counts, exact,
                                              bias.value().to(at::kDouble)),
               1e-6, "grouped");
}

TEST(BlockWeight, tokens_read_its_rows) {
  Blocks w(at::randn({19, 40}), BlockCode::kQ8_0);
  const at::Tensor ids = at::tensor({18, 0, 7, 7}, at::kLong);
  EXPECT_TRUE(
      at::equal(ops::embedding(ids, w.weight), w.blocks->numbers(at::kFloat).index_select(0, ids)));
}

TEST(BlockWeight, is_no_tensor_of_numbers) {
  Blocks w(at::randn({16, 32}), BlockCode::kQ8_0);
  const at::Tensor value = w.weight.value();
  EXPECT_EQ(value.sizes(), (std::vector<int64_t>{16, 32}));
  EXPECT_THROW(at::mm(value, at::randn({32, 2})), c10::Error);
  EXPECT_THROW(at::abs(value), c10::Error);
  EXPECT_EQ(ops::block_weight(at::randn({16, 32})), nullptr);
}

}  // namespace
}  // namespace qianli::testing
