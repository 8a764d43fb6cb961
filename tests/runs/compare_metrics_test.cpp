#include "qianli/runs/compare_metrics.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace qianli::runs {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Steps [first, last] with a loss and a learning rate each.
std::string run_of(int64_t first, int64_t last,
                   const std::function<double(int64_t step)>& loss = {}) {
  std::string text;
  for (int64_t step = first; step <= last; ++step) {
    const double value = loss ? loss(step) : 8.0 / static_cast<double>(step);
    text +=
        fmt::format("{{\"step\":{},\"grad_norm\":1.5,\"loss\":{},\"lr\":0.001}}\n", step, value);
  }
  return text;
}

MetricsComparison compare(const std::string& a, const std::string& b, double tolerance = 0) {
  return compare_metrics(MetricsReader(a, "A"), MetricsReader(b, "B"), tolerance);
}

TEST(CompareMetrics, a_run_equals_itself) {
  const auto found = compare(run_of(1, 20), run_of(1, 20));
  EXPECT_TRUE(found.equal());
  EXPECT_EQ(found.steps, 20);
  EXPECT_TRUE(found.growth.empty());
}

TEST(CompareMetrics, the_last_bit_of_a_loss_is_found) {
  const auto changed = [](int64_t step) {
    const double loss = 8.0 / static_cast<double>(step);
    return step == 7 ? std::nextafter(loss, 9.0) : loss;
  };
  const auto found = compare(run_of(1, 20), run_of(1, 20, changed));
  EXPECT_FALSE(found.equal());
  ASSERT_EQ(found.keys.size(), 1u);
  EXPECT_EQ(found.keys[0].key, "loss");
  EXPECT_EQ(found.keys[0].first_step, 7);
  EXPECT_EQ(found.keys[0].steps, 1);
  EXPECT_EQ(found.keys[0].first.a, 8.0 / 7);
  EXPECT_EQ(found.keys[0].first.b, std::nextafter(8.0 / 7, 9.0));
  EXPECT_GT(found.keys[0].largest, 0);
  EXPECT_TRUE(compare(run_of(1, 20), run_of(1, 20, changed), 1e-15).equal());
}

TEST(CompareMetrics, growth_is_told_at_powers_of_two_and_at_the_end) {
  const auto drifting = [](int64_t step) {
    return 8.0 / static_cast<double>(step) * (step < 10 ? 1 : 1 + 1e-6 * static_cast<double>(step));
  };
  const auto found = compare(run_of(1, 30), run_of(1, 30, drifting), 1e-9);
  std::vector<int64_t> steps;
  for (const GrowthLine& line : found.growth) steps.push_back(line.step);
  EXPECT_EQ(steps, (std::vector<int64_t>{10, 11, 13, 17, 25, 30}));
  EXPECT_EQ(found.followed, std::vector<std::string>{"loss"});
  EXPECT_NEAR(found.growth.back().values[0].relative(), 3e-5, 1e-8);
  EXPECT_EQ(found.keys[0].steps, 21);
  EXPECT_EQ(found.keys[0].largest_step, 30);
}

TEST(CompareMetrics, timing_is_no_difference) {
  const auto found = compare("{\"step\":1,\"mfu\":0.5,\"memory_bytes\":1,\"step_seconds\":2}\n",
                             "{\"step\":1,\"mfu\":0.1,\"tokens_per_second\":1}\n");
  EXPECT_TRUE(found.equal());
}

TEST(CompareMetrics, a_key_that_one_run_lacks_is_a_difference) {
  const auto found = compare("{\"step\":1,\"validation_loss\":2}\n", "{\"step\":1}\n", 0.5);
  ASSERT_EQ(found.keys.size(), 1u);
  EXPECT_EQ(found.keys[0].key, "validation_loss");
  EXPECT_FALSE(found.keys[0].first.b.has_value());
  EXPECT_EQ(found.keys[0].largest, kInfinity);
}

TEST(CompareMetrics, steps_that_one_run_has_are_counted) {
  const auto found = compare(run_of(1, 10), run_of(5, 12));
  EXPECT_FALSE(found.equal());
  EXPECT_TRUE(found.keys.empty());
  EXPECT_EQ(found.steps, 6);
  EXPECT_EQ(found.only_a.steps, 4);
  EXPECT_EQ(found.only_a.last, 4);
  EXPECT_EQ(found.only_b.first, 11);
  EXPECT_EQ(found.only_b.steps, 2);
  EXPECT_EQ(compare("", run_of(1, 3)).only_b.steps, 3);
}

TEST(CompareMetrics, of_keys_that_part_on_one_step_the_loss_comes_first) {
  const auto found = compare("{\"step\":1,\"aux\":1,\"grad_norm\":1,\"loss\":1}\n",
                             "{\"step\":1,\"aux\":2,\"grad_norm\":2,\"loss\":2}\n");
  ASSERT_EQ(found.keys.size(), 3u);
  EXPECT_EQ(found.keys[0].key, "loss");
  EXPECT_EQ(found.keys[1].key, "grad_norm");
  const auto other = compare("{\"step\":1,\"lr\":1,\"loss\":1}\n{\"step\":2,\"loss\":1}\n",
                             "{\"step\":1,\"lr\":2,\"loss\":1}\n{\"step\":2,\"loss\":2}\n");
  EXPECT_EQ(other.keys[0].key, "lr");
  EXPECT_EQ(other.followed, (std::vector<std::string>{"lr", "loss"}));
}

TEST(ValuePair, relative_difference_of_unusual_numbers) {
  const double nan = std::nan(""), huge = std::numeric_limits<double>::max(),
               tiny = std::numeric_limits<double>::denorm_min();
  const auto relative = [](std::optional<double> a, std::optional<double> b) {
    return ValuePair{a, b}.relative();
  };
  EXPECT_EQ(relative(nan, nan), 0);
  EXPECT_EQ(relative(nan, 1), kInfinity);
  EXPECT_EQ(relative(huge, -huge), 2);
  EXPECT_EQ(relative(0, tiny), 1);
  EXPECT_EQ(relative(0.0, -0.0), 0);
  EXPECT_EQ(relative(1, std::nullopt), kInfinity);
  EXPECT_EQ(relative(4, 3), 0.25);
}

}  // namespace
}  // namespace qianli::runs
