#include "qianli/plan/communicator_buffers.h"

#include <gtest/gtest.h>

namespace qianli::plan {
namespace {

constexpr int64_t kMebibyte = int64_t{1} << 20;

TEST(CommunicatorBuffers, are_twice_the_activations_of_a_microbatch) {
  // 4096 tokens of two ranks, 2 rows of 5120 numbers: 20 MB, of a tensor rank of 8 2.5.
  const MessageSizes sizes{.sequence = 4096,
                           .context = 2,
                           .tensor = 8,
                           .split_tokens = true,
                           .rows = 2,
                           .hidden = 5120,
                           .experts_of_token = 6,
                           .expert_factor = 1.5};
  const auto buffers = adaptive_buffers(sizes);
  EXPECT_EQ(buffers.at("tensor"), 40 * kMebibyte);
  EXPECT_EQ(buffers.at("stages"), 2 * 3 * kMebibyte);
  EXPECT_EQ(buffers.at("experts"), 45 * kMebibyte);  // 2 x 15, and half of it more
}

TEST(CommunicatorBuffers, of_whole_activations_are_larger) {
  const auto buffers = adaptive_buffers(
      {.sequence = 4096, .tensor = 4, .rows = 1, .hidden = 1000, .experts_of_token = 2});
  EXPECT_EQ(buffers.at("tensor"), 4 * 4 * kMebibyte);  // 3.9 each
  EXPECT_EQ(buffers.at("stages"), 2 * 4 * kMebibyte);
  EXPECT_EQ(buffers.at("experts"), 200 * kMebibyte);
}

TEST(CommunicatorBuffers, of_experts_are_for_models_that_have_them) {
  EXPECT_FALSE(adaptive_buffers({.sequence = 8, .hidden = 8}).contains("experts"));
}

}  // namespace
}  // namespace qianli::plan
