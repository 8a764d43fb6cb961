#include "qianli/nn/expert_exchange.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/variable.h>

#include <numeric>

#include "qianli/dist/rank_threads.h"

namespace qianli::testing {
namespace {

constexpr int64_t kRanks = 3, kExperts = 8, kWidth = 5;

// Rows of rank `rank` for expert `e`: none of some.
int64_t rows_of(int64_t rank, int64_t e) { return (3 * rank + 2 * e) % 4; }

// Tells where a row is from.
at::Tensor row(int64_t rank, int64_t e, int64_t number) {
  return at::full({1, kWidth}, static_cast<double>(100 * rank + 10 * e + number), at::kFloat);
}

// 8 experts over 3 ranks: 3, 3 and 2.
int64_t holder(int64_t e) { return e < 3 ? 0 : e < 6 ? 1 : 2; }

TEST(ExpertExchange, brings_rows_to_their_experts_and_back_with_as_many_bytes_as_travel) {
  dist::run_ranks(kRanks, [](const dist::World& world) {
    const dist::Group group = world.all("experts");
    const int64_t rank = group.rank();
    std::vector<int64_t> counts;
    std::vector<at::Tensor> own, expected;
    for (int64_t e = 0; e < kExperts; ++e) {
      counts.push_back(rows_of(rank, e));
      for (int64_t i = 0; i < counts.back(); ++i) own.push_back(row(rank, e, i));
      for (int64_t source = 0; holder(e) == rank && source < kRanks; ++source) {
        for (int64_t i = 0; i < rows_of(source, e); ++i) expected.push_back(row(source, e, i));
      }
    }
    const nn::ExpertExchange exchange(counts, group);
    const at::Tensor rows = at::cat(own).set_requires_grad(true);
    const at::Tensor there = exchange.to_experts(rows);
    EXPECT_TRUE(at::equal(there, at::cat(expected)));
    EXPECT_EQ(std::accumulate(exchange.counts().begin(), exchange.counts().end(), int64_t{0}),
              there.size(0));
    const at::Tensor back = exchange.from_experts(there * 3);
    EXPECT_TRUE(at::equal(back, rows * 3));
    (back * back).sum().backward();
    EXPECT_TRUE(at::equal(rows.grad(), rows * 18));

    // The counts for the others' experts; then rows for them, those of others, and both again with
    // gradients.
    int64_t others_experts = 0, to_others = 0, of_others = 0;
    for (int64_t e = 0; e < kExperts; ++e) {
      const bool elsewhere = holder(e) != rank;
      others_experts += elsewhere;
      if (elsewhere) to_others += rows_of(rank, e);
      for (int64_t source = 0; !elsewhere && source < kRanks; ++source)
        of_others += source == rank ? 0 : rows_of(source, e);
    }
    EXPECT_DOUBLE_EQ(
        group.traffic().bytes,
        static_cast<double>(8 * others_experts + 2 * (to_others + of_others) * kWidth * 4));
  });
}

}  // namespace
}  // namespace qianli::testing
