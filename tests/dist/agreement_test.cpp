#include "qianli/dist/agreement.h"

#include <gtest/gtest.h>

#include <atomic>

#include "qianli/dist/rank_threads.h"

namespace qianli::dist {
namespace {

// What `body` throws on each rank, by its message; "" where nothing.
std::vector<std::string> errors_of(int64_t ranks, const std::function<void(const Group&)>& body) {
  std::vector<std::string> errors(static_cast<size_t>(ranks));
  run_ranks(ranks, [&](const World& world) {
    try {
      body(world.all());
    } catch (const Error& error) {
      errors[static_cast<size_t>(world.rank())] = error.what();
    }
  });
  return errors;
}

TEST(Agreement, all_get_what_the_first_rank_says) {
  std::atomic<int> calls = 0;
  run_ranks(3, [&](const World& world) {
    const auto said = first_rank(world.all(), [&] { return "call " + std::to_string(++calls); });
    EXPECT_EQ(said, "call 1");
    EXPECT_EQ(first_rank(world.all("more"), [] { return std::string(); }), "");
  });
  EXPECT_EQ(calls, 1);
}

TEST(Agreement, the_first_rank_gets_what_all_say) {
  run_ranks(3, [&](const World& world) {
    const auto texts = every_rank(
        world.all(), [&] { return std::string(static_cast<size_t>(2 * world.rank()), 'x'); });
    if (world.rank() == 0) {
      EXPECT_EQ(texts, (std::vector<std::string>{"", "xx", "xxxx"}));
    } else {
      EXPECT_TRUE(texts.empty());
    }
  });
}

TEST(Agreement, where_one_rank_fails_all_throw) {
  auto errors = errors_of(3, [](const Group& group) {
    every_rank(group, [&]() -> std::string {
      if (group.rank() == 1) throw DataError("data", "expected a, got b");
      return "";
    });
  });
  EXPECT_EQ(errors[1], "[data] expected a, got b.");
  for (const size_t rank : {0, 2}) {
    EXPECT_EQ(errors[rank], "[dist] rank 1 failed: [data] expected a, got b.");
  }
  errors = errors_of(2, [](const Group& group) {
    first_rank(group, []() -> std::string { throw DataError("data", "no"); });
  });
  EXPECT_EQ(errors, (std::vector<std::string>{"[data] no.", "[dist] rank 0 failed: [data] no."}));
}

TEST(Agreement, names_the_rank_that_is_different) {
  const auto errors = errors_of(
      3, [](const Group& group) { expect_same(group, "the data", group.rank() == 2 ? "b" : "a"); });
  for (const std::string& error : errors) {
    EXPECT_NE(error.find("expected the data 'a' as on rank 0, got 'b' on rank 2"), error.npos)
        << error;
  }
}

TEST(World, the_first_rank_may_take_its_time) {
  std::atomic<int> order = 0;
  run_ranks(
      3,
      [&](const World& world) {
        world.first_alone("x", [&] { EXPECT_EQ(order++ == 0, world.rank() == 0); });
      },
      std::chrono::seconds(20));
  EXPECT_EQ(order, 3);
  std::atomic<int> failed = 0;
  EXPECT_THROW(run_ranks(2,
                         [&](const World& world) {
                           try {
                             world.first_alone("y", [] { throw DataError("data", "no"); });
                           } catch (const Error&) {
                             ++failed;
                             throw;
                           }
                         }),
               DataError);
  EXPECT_EQ(failed, 2);
}

}  // namespace
}  // namespace qianli::dist
