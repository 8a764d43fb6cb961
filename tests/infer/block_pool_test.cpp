#include "qianli/infer/block_pool.h"

#include <gtest/gtest.h>

#include "qianli/infer/choices.h"

namespace qianli::infer {
namespace {

using Ids = std::vector<int64_t>;

TEST(BlockPool, blocks_come_back_when_the_last_holder_lets_go) {
  BlockPool pool(2, 4);
  const auto a = pool.take(), b = pool.take();
  ASSERT_TRUE(a && b);
  EXPECT_FALSE(pool.take());
  pool.hold(*a);
  pool.release(*a);
  EXPECT_EQ(pool.available(), 0);
  pool.release(*a);
  EXPECT_EQ(pool.available(), 1);
  EXPECT_EQ(pool.take(), a);
}

TEST(BlockPool, known_beginnings_are_found_and_leave_a_token) {
  BlockPool pool(4, 2);
  const Ids tokens{1, 2, 3, 4, 5};
  const auto a = *pool.take(), b = *pool.take();
  const auto chain = pool.publish(a, BlockPool::kStart, std::span(tokens).first(2));
  pool.publish(b, chain, std::span(tokens).subspan(2, 2));
  EXPECT_EQ(pool.match(tokens).blocks, (Ids{a, b}));
  EXPECT_EQ(pool.match(Ids{1, 2, 3, 4}).blocks, (Ids{a}));
  EXPECT_EQ(pool.match(Ids{3, 4, 5}).blocks, Ids{});  // the same tokens behind others
  EXPECT_EQ(pool.match(Ids{1, 2}).blocks, Ids{});
}

TEST(BlockPool, what_was_let_go_longest_ago_is_forgotten_first) {
  BlockPool pool(3, 1);
  Ids blocks;
  for (const int64_t token : {7, 8, 9}) {
    blocks.push_back(*pool.take());
    pool.publish(blocks.back(), BlockPool::kStart, Ids{token});
  }
  pool.release(blocks[1]);
  pool.release(blocks[0]);
  pool.release(blocks[2]);
  EXPECT_EQ(pool.take(), blocks[1]);
  EXPECT_TRUE(pool.match(Ids{8, 0}).blocks.empty());
  const auto match = pool.match(Ids{7, 0});
  EXPECT_EQ(match.blocks, Ids{blocks[0]});
  EXPECT_EQ(pool.take(), blocks[2]);
  EXPECT_FALSE(pool.take());
}

TEST(Choices, say_what_may_come_next) {
  const Choices choices({{5, 6}, {5, 6, 7}, {4}, {5, 9}});
  EXPECT_EQ(choices.behind({}).ids, (Ids{4, 5}));
  EXPECT_FALSE(choices.behind({}).may_end);
  EXPECT_EQ(choices.behind(Ids{5}).ids, (Ids{6, 9}));
  EXPECT_EQ(choices.behind(Ids{5, 6}).ids, Ids{7});
  EXPECT_TRUE(choices.behind(Ids{5, 6}).may_end);
  EXPECT_TRUE(choices.behind(Ids{4}).ids.empty());
}

}  // namespace
}  // namespace qianli::infer
