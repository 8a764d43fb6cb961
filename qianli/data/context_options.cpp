#include <fmt/format.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/data/context_deal.h"

namespace qianli::data {
namespace {

// The divisors of n from `least` to `most` that lie nearest to `value`, for a sentence.
std::string nearest_divisors(int64_t n, int64_t value, int64_t least, int64_t most) {
  int64_t below = 0, above = 0;
  for (int64_t d = least; d <= most; ++d) {
    if (n % d != 0) continue;
    if (d <= value) below = d;
    if (d >= value && above == 0) above = d;
  }
  if (below == 0 && above == 0) return "there is none";
  if (below == 0 || above == 0) return fmt::format("nearest: {}", std::max(below, above));
  return fmt::format("nearest: {} or {}", below, above);
}

}  // namespace

ContextAlgorithm context_algorithm(std::string_view name) {
  if (name == "ring") return ContextAlgorithm::kRing;
  if (name == "ulysses") return ContextAlgorithm::kUlysses;
  if (name == "hybrid") return ContextAlgorithm::kHybrid;
  if (name == "kv_allgather") return ContextAlgorithm::kKvAllGather;
  if (name == "adaptive") return ContextAlgorithm::kAdaptive;
  throw ConfigError(
      "parallel",
      fmt::format("expected ring, ulysses, hybrid, kv_allgather or adaptive, got {}", name));
}

KeptKeys kept_keys(std::string_view name) {
  if (name == "none") return KeptKeys::kNone;
  if (name == "half") return KeptKeys::kKeys;
  if (name == "full") return KeptKeys::kAll;
  throw ConfigError("parallel", fmt::format("expected none, half or full, got {}", name));
}

int64_t ContextOptions::heads() const {
  if (algorithm == ContextAlgorithm::kUlysses) return size;
  const bool exchanges =
      algorithm == ContextAlgorithm::kHybrid || algorithm == ContextAlgorithm::kAdaptive;
  return exchanges ? inner : 1;
}

std::vector<std::string> context_problems(const ContextOptions& options, int64_t query_heads,
                                          int64_t tokens) {
  const int64_t size = options.size, inner = options.inner;
  const bool hybrid = options.algorithm == ContextAlgorithm::kHybrid,
             adaptive = options.algorithm == ContextAlgorithm::kAdaptive;
  const int64_t least = hybrid ? 2 : 1;
  if ((hybrid || adaptive) && (inner < least || inner >= size || size % inner != 0)) {
    return {fmt::format(
        "expected ranks that exchange heads to be {}fewer than the {} that share a sequence, and a "
        "divisor of them, got {}; {}",
        hybrid ? "more than 1, " : "", size, inner,
        nearest_divisors(size, inner, least, size - 1))};
  }
  std::vector<std::string> problems;
  if (options.heads() > query_heads) {
    problems.push_back(fmt::format(
        "expected at most as many ranks that exchange heads as there are heads, {}, got {}; ring, "
        "kv_allgather and adaptive take any number",
        query_heads, options.heads()));
  }
  const bool ring = options.algorithm == ContextAlgorithm::kRing || hybrid;
  const int64_t places = ring ? options.places() : 1;
  if (options.window < 1 || places % options.window != 0) {
    problems.push_back(
        fmt::format("expected a window that divides the {} ranks of the ring, got {}; {}", places,
                    options.window, nearest_divisors(places, options.window, 1, places)));
  }
  if (tokens < size) {
    problems.push_back(fmt::format(
        "expected a microbatch of at least one token for each of {} ranks, got {}", size, tokens));
  }
  return problems;
}

}  // namespace qianli::data
