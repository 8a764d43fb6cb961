#include "qianli/dist/group.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <future>

#include "qianli/base/trace.h"
#include "qianli/dist/rank_threads.h"

namespace qianli::dist {
namespace {

using namespace std::chrono_literals;

at::Tensor numbers(int64_t first, int64_t count) {
  return at::arange(first, first + count, at::TensorOptions().dtype(at::kDouble));
}

TEST(Group, of_one_returns_its_input) {
  const Group group;
  const at::Tensor x = numbers(0, 4);
  group.all_reduce(x);
  EXPECT_TRUE(at::equal(x, numbers(0, 4)));
  EXPECT_TRUE(group.all_gather(x).is_same(x));
  EXPECT_TRUE(group.reduce_scatter(x).is_same(x));
  EXPECT_TRUE(group.all_to_all(x, {4}, {4}).is_same(x));
  group.broadcast(x, 0);
  group.barrier();
  EXPECT_EQ(group.traffic().collectives, 0);
}

TEST(Group, collectives_mean_what_they_are_called) {
  run_ranks(3, [](const World& world) {
    const Group group = world.all();
    const int64_t r = group.rank();
    at::Tensor x = numbers(r, 2);
    group.all_reduce(x);
    EXPECT_TRUE(at::equal(x, numbers(1, 2) * 3 - at::full({2}, 0.0, x.options())));
    x = numbers(r, 2);
    group.all_reduce(x, Reduction::kMax);
    EXPECT_TRUE(at::equal(x, numbers(2, 2)));
    x = numbers(r, 2);
    group.all_reduce(x, Reduction::kMin);
    EXPECT_TRUE(at::equal(x, numbers(0, 2)));
    x = numbers(r, 2);
    group.all_reduce(x, Reduction::kAverage);
    EXPECT_TRUE(at::allclose(x, numbers(1, 2)));

    EXPECT_TRUE(at::equal(group.all_gather(numbers(2 * r, 2)), numbers(0, 6)));
    EXPECT_TRUE(at::equal(group.reduce_scatter(numbers(0, 6)), numbers(2 * r, 2) * 3));

    // Rank r sends s + 1 rows with the value 10 r + s to rank s.
    std::vector<int64_t> sent = {1, 2, 3}, received(3, r + 1);
    std::vector<at::Tensor> parts, expected;
    for (int64_t s = 0; s < 3; ++s) {
      parts.push_back(at::full({s + 1, 2}, static_cast<double>(10 * r + s)));
      expected.push_back(at::full({r + 1, 2}, static_cast<double>(10 * s + r)));
    }
    EXPECT_TRUE(at::equal(group.all_to_all(at::cat(parts), sent, received), at::cat(expected)));

    x = numbers(r, 2);
    group.broadcast(x, 1);
    EXPECT_TRUE(at::equal(x, numbers(1, 2)));

    // Around the ring; two messages with the same tag stay in order.
    const at::Tensor first = numbers(r, 1), second = numbers(r + 10, 1);
    at::Tensor in_first = numbers(-1, 1), in_second = numbers(-1, 1);
    std::vector<Pending> pending;
    pending.push_back(group.start_send(first, (r + 1) % 3));
    pending.push_back(group.start_send(second, (r + 1) % 3));
    pending.push_back(group.start_receive(in_first, (r + 2) % 3));
    pending.push_back(group.start_receive(in_second, (r + 2) % 3));
    for (Pending& each : pending) each.wait();
    EXPECT_TRUE(at::equal(in_first, numbers((r + 2) % 3, 1)));
    EXPECT_TRUE(at::equal(in_second, numbers((r + 2) % 3 + 10, 1)));
    group.barrier();
  });
}

TEST(Group, counts_what_ring_algorithms_send) {
  run_ranks(4, [](const World& world) {
    const Group group = world.all();
    const double before = group.traffic().bytes;
    group.all_reduce(numbers(0, 8));  // 64 bytes
    EXPECT_EQ(group.traffic().bytes - before, 2 * 64 * 3 / 4.0);
    group.all_gather(numbers(0, 2));
    group.reduce_scatter(numbers(0, 8));
    EXPECT_EQ(group.traffic().bytes - before, 96 + 48 + 48);
    group.all_to_all(numbers(0, 4), {1, 1, 1, 1}, {1, 1, 1, 1});
    EXPECT_EQ(group.traffic().bytes - before, 192 + 24);
    EXPECT_EQ(group.traffic().collectives, 4);
  });
}

TEST(Group, of_some_ranks_knows_its_places) {
  run_ranks(4, [](const World& world) {
    const int64_t r = world.rank();
    const Group pair = world.group({r % 2, r % 2 + 2}, "pairs");
    EXPECT_EQ(pair.rank(), r / 2);
    at::Tensor x = numbers(r, 1);
    pair.all_reduce(x);
    EXPECT_EQ(x.item<double>(), static_cast<double>(2 * (r % 2) + 2));
  });
}

TEST(Group, names_a_collective_that_a_rank_does_not_join) {
  try {
    run_ranks(
        2,
        [](const World& world) {
          const Group group = world.group({0, 1}, "tensor");
          group.barrier();
          if (world.rank() == 0) group.all_reduce(numbers(0, 3));
        },
        2s);
    FAIL() << "rank 0 got an answer";
  } catch (const LostRankError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("all_reduce 2 of Double [3] on rank 0 (tensor of ranks 0, 1)"), text.npos)
        << text;
  }
}

TEST(Group, says_what_every_rank_was_doing_when_one_is_missed) {
  std::promise<void> over;
  std::shared_future<void> is_over = over.get_future();
  try {
    run_ranks(
        3,
        [&](const World& world) {
          const Group group = world.all();
          group.barrier();
          const trace::Span step([] { return std::string("step 7"); });
          if (world.rank() == 1) {
            const trace::Span unit([] { return std::string("B0.1"); });
            is_over.wait();
            return;
          }
          try {
            group.all_reduce(numbers(0, 3));
          } catch (...) {
            if (world.rank() == 0) over.set_value();
            throw;
          }
        },
        3s);
    FAIL() << "rank 0 got an answer";
  } catch (const LostRankError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("rank 1: step 7, B0.1"), text.npos) << text;
    EXPECT_NE(text.find("all_reduce 2 of Double [3] of all of ranks 0, 1, 2"), text.npos) << text;
    EXPECT_NE(text.find("step 7, waits "), text.npos) << text;
  }
}

TEST(Group, a_failing_rank_tells_its_own_error_before_those_it_leaves_alone) {
  EXPECT_THROW(run_ranks(
                   3,
                   [](const World& world) {
                     const Group group = world.all();
                     group.barrier();
                     if (world.rank() == 2) throw DataError("data", "expected x, got y");
                     group.all_reduce(numbers(0, 1));
                   },
                   20s),
               DataError);
}

TEST(World, says_that_ranks_did_not_come) {
  EXPECT_THROW(World::connect({.rank = 1, .size = 2, .port = 1, .deadline = 1500ms}),
               LostRankError);
}

}  // namespace
}  // namespace qianli::dist
