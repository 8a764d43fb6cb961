#include "qianli/plan/sharing.h"

#include <fmt/format.h>

#include <numeric>
#include <vector>

#include "qianli/base/error.h"

namespace qianli::plan {
namespace {

void expect_divisor(const char* key, int64_t value, int64_t ranks) {
  if (ranks % value == 0) return;
  std::vector<int64_t> fitting;
  for (int64_t n = 1; n <= ranks; ++n) {
    if (ranks % n == 0) fitting.push_back(n);
  }
  throw ConfigError(
      "parallel",
      fmt::format("expected parallel.{} to divide the {} ranks that share out the same parameters, "
                  "got {}",
                  key, ranks, value),
      fmt::format("use one of {}", fmt::join(fitting, ", ")));
}

// All of them is no smaller circle.
int64_t smaller(int64_t near, int64_t ranks) { return near == ranks ? 1 : near; }

}  // namespace

Sharing sharing_of(const config::ParallelConfig& config, int64_t replicas) {
  if (config.zero == 0) return {};
  Sharing sharing{.ranks = config.zero_ranks == 0 ? replicas : config.zero_ranks};
  expect_divisor("zero_ranks", sharing.ranks, replicas);
  if (config.zero_parameter_ranks > 0) {
    expect_divisor("zero_parameter_ranks", config.zero_parameter_ranks, sharing.ranks);
    sharing.near = smaller(config.zero_parameter_ranks, sharing.ranks);
  }
  return sharing;
}

Sharing sharing_of_experts(const config::ParallelConfig& config, int64_t replicas) {
  if (config.zero == 0) return {};
  const int64_t ranks = std::gcd(config.zero_ranks, replicas);  // 0: all
  if (config.zero_parameter_ranks == 0) return {.ranks = ranks};
  return {.ranks = ranks, .near = smaller(std::gcd(config.zero_parameter_ranks, ranks), ranks)};
}

}  // namespace qianli::plan
