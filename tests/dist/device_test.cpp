// Groups with a device side, whose rules are kept by a transport without a device.
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <thread>

#include "qianli/dist/group.h"
#include "qianli/dist/rank_threads.h"
#include "tests/support/ordered_transport.h"

namespace qianli::dist {
namespace {

using namespace std::chrono_literals;
using testing::OrderedTransport;

at::Tensor numbers(int64_t first, int64_t count) {
  return at::arange(first, first + count, at::TensorOptions().dtype(at::kDouble));
}

void run(int64_t ranks, const std::shared_ptr<OrderedTransport>& transport,
         const std::function<void(const World&)>& body, std::chrono::milliseconds deadline = 30s) {
  run_ranks(ranks, body, deadline, [&](int64_t) { return Devices{transport, {}}; });
}

TEST(DeviceSide, carries_the_tensors_that_it_takes) {
  const auto transport = std::make_shared<OrderedTransport>();
  run(3, transport, [](const World& world) {
    const Group group = world.all();
    const int64_t r = group.rank();
    at::Tensor x = numbers(r, 2);
    group.all_reduce(x);
    EXPECT_TRUE(at::equal(x, numbers(1, 2) * 3));
    EXPECT_TRUE(at::equal(group.all_gather(numbers(2 * r, 2)), numbers(0, 6)));
    EXPECT_TRUE(at::equal(group.reduce_scatter(numbers(0, 6)), numbers(2 * r, 2) * 3));
    const at::Tensor rows = group.all_to_all(at::full({3}, static_cast<double>(r)), {0, 1, 2},
                                             std::vector<int64_t>(3, r));
    EXPECT_EQ(rows.sum().item<double>(), static_cast<double>(3 * r));
    at::Tensor whole = at::full({1}, r, at::kLong);
    group.all_reduce(whole);  // by Gloo
    EXPECT_EQ(whole.item<int64_t>(), 3);
    group.barrier();
  });
  EXPECT_TRUE(transport->broken_rules().empty());
  EXPECT_EQ(transport->operations(), 3 * 5);  // four, and one when the communicator was opened
}

TEST(DeviceSide, sends_messages_on_open_routes) {
  const auto transport = std::make_shared<OrderedTransport>();
  run(3, transport, [](const World& world) {
    const Group group = world.all();
    const int64_t r = group.rank(), next = (r + 1) % 3, before = (r + 2) % 3;
    const at::Tensor sent = numbers(r, 3);
    EXPECT_THROW(group.start_send(sent, next), c10::Error);
    group.open_routes({{0, 1}, {1, 2}, {2, 0}});
    group.open_routes({{2, 0}, {0, 1}, {1, 2}});  // already open
    at::Tensor first = at::zeros({3}, at::kDouble), second = at::zeros({1}, at::kDouble);
    // All send before they receive, with tags that change.
    std::vector<Pending> pending;
    pending.push_back(group.start_send(sent, next, 4));
    pending.push_back(group.start_send(numbers(r, 1), next, 3));
    pending.push_back(group.start_receive(first, before, 4));
    pending.push_back(group.start_receive(second, before, 3));
    for (Pending& each : pending) each.wait();
    EXPECT_TRUE(at::equal(first, numbers(before, 3)));
    EXPECT_TRUE(at::equal(second, numbers(before, 1)));
  });
  EXPECT_TRUE(transport->broken_rules().empty());
  EXPECT_EQ(transport->opened().size(), 3 * (1 + 2));
}

TEST(DeviceSide, does_not_sort_messages_by_tag) {
  const auto transport = std::make_shared<OrderedTransport>(3s);
  EXPECT_THROW(run(
                   2, transport,
                   [](const World& world) {
                     const Group group = world.all();
                     group.open_routes({{0, 1}});
                     at::Tensor few = numbers(0, 1), many = numbers(0, 3);
                     std::vector<Pending> pending;
                     if (world.rank() == 0) {
                       pending.push_back(group.start_send(few, 1, 0));
                       pending.push_back(group.start_send(many, 1, 1));
                     } else {
                       pending.push_back(group.start_receive(many, 0, 1));
                       pending.push_back(group.start_receive(few, 0, 0));
                     }
                     for (Pending& each : pending) each.wait();
                   },
                   3s),
               LostRankError);
  EXPECT_FALSE(transport->broken_rules().empty());
}

TEST(DeviceSide, of_ranks_in_another_order_is_noticed) {
  const auto transport = std::make_shared<OrderedTransport>(3s);
  EXPECT_THROW(run(
                   2, transport,
                   [](const World& world) {
                     const Group group = world.all();
                     if (world.rank() == 0) group.all_reduce(numbers(0, 4));
                     group.all_gather(numbers(0, 4));
                     if (world.rank() == 1) group.all_reduce(numbers(0, 4));
                   },
                   3s),
               LostRankError);
  EXPECT_FALSE(transport->broken_rules().empty());
}

// wait() returns at once, as NCCL's does; the group's next call tells what was lost.
TEST(DeviceSide, tells_at_the_next_call_what_a_rank_did_not_join) {
  const auto transport = std::make_shared<OrderedTransport>(2s, OrderedTransport::Wait::kReturns);
  std::string text;
  try {
    run(
        2, transport,
        [](const World& world) {
          const Group group = world.group({0, 1}, "tensor");
          group.barrier();
          if (world.rank() == 1) return std::this_thread::sleep_for(4s);
          const auto begin = std::chrono::steady_clock::now();
          group.all_reduce(numbers(0, 3));
          EXPECT_LT(std::chrono::steady_clock::now() - begin, 1s);
          std::this_thread::sleep_for(2500ms);
          group.barrier();
        },
        2s);
    FAIL() << "rank 0 went on";
  } catch (const LostRankError& error) {
    text = error.what();
  }
  EXPECT_NE(text.find("all_reduce 2 of Double [3] on rank 0 (tensor of ranks 0, 1)"), text.npos)
      << text;
  EXPECT_NE(text.find("still waits for it"), text.npos) << text;
  EXPECT_GT(transport->aborted(), 0);
}

TEST(DeviceSide, gets_the_options_of_its_group) {
  const auto transport = std::make_shared<OrderedTransport>();
  const config::CommunicatorOptions options{.min_ctas = 4, .max_ctas = 8};
  run_ranks(
      2,
      [](const World& world) {
        world.group({0, 1}, "tensor").barrier();
        world.group({0, 1}, "data").barrier();
        EXPECT_EQ(world.group_names(), (std::vector<std::string>{"data", "tensor"}));
      },
      30s,
      [&](int64_t) {
        return Devices{transport, {{"tensor", options}}};
      });
  int found = 0;
  for (const Communicator& each : transport->opened()) {
    EXPECT_EQ(each.options, each.name == "tensor" ? options : config::CommunicatorOptions{});
    found += each.name == "tensor";
  }
  EXPECT_EQ(found, 2);
}

}  // namespace
}  // namespace qianli::dist
