#include "qianli/data/token_order.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qianli::data {
namespace {

constexpr int64_t kMostSide = 1024, kLeastSide = 64, kBlocksOfPlace = 32;
constexpr int64_t kLeastClusters = 2, kMostClusters = 8;
constexpr size_t kMostParts = 8;

std::vector<TokenRun> blocks_of(const ContextMask& mask, int64_t side) {
  const auto starts = even_starts(mask.tokens(), side);
  std::vector<TokenRun> blocks;
  for (size_t i = 0; i + 1 < starts.size(); ++i) blocks.push_back({starts[i], starts[i + 1]});
  return blocks;
}

// The blocks by label, each label's in the order of the tokens.
std::vector<TokenRun> sorted(const std::vector<TokenRun>& blocks,
                             const std::vector<int64_t>& labels) {
  std::vector<size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t block) { return labels[block]; });
  std::vector<TokenRun> runs;
  for (const size_t block : order) runs.push_back(blocks[block]);
  return runs;
}

bool few_parts(const std::vector<PlaceParts>& places) {
  return std::ranges::all_of(places, [](const auto& parts) { return parts.size() <= kMostParts; });
}

}  // namespace

CellGrid coarse_mask(const ContextMask& mask, int64_t side) {
  std::vector<PlaceParts> blocks = parts_in_order({{0, mask.tokens()}}, mask.segment_starts, side);
  return open_cells(blocks, mask.causal, mask.window);
}

int64_t coarse_side(const ContextMask& mask, int64_t places) {
  return std::min(std::clamp(kBlocksOfPlace * places, kLeastSide, kMostSide), mask.tokens());
}

OrderScore order_score(const CellGrid& places) {
  std::vector<double> tasks(static_cast<size_t>(places.side()));
  for (int64_t i = 0; i < places.side(); ++i) {
    for (int64_t j = 0; j < places.side(); ++j) {
      if (!places.open(i, j)) continue;
      tasks[static_cast<size_t>(i)] += 1;
      if (i != j) tasks[static_cast<size_t>(j)] += 1;
    }
  }
  const auto count = static_cast<double>(tasks.size());
  const double mean = std::accumulate(tasks.begin(), tasks.end(), 0.0) / count;
  double squares = 0;
  for (const double own : tasks) squares += (own - mean) * (own - mean);
  return {places.count(), std::sqrt(squares / count)};
}

std::vector<PlaceParts> adaptive_parts(const ContextMask& mask, int64_t places) {
  auto best = parts_in_order({{0, mask.tokens()}}, mask.segment_starts, places);
  const auto score_of = [&](const auto& parts) {
    return order_score(open_cells(parts, mask.causal, mask.window));
  };
  OrderScore best_score = score_of(best);
  if (best_score.open_cells <= places) return best;  // nobody needs anything from another
  const int64_t side = coarse_side(mask, places);
  const auto blocks = blocks_of(mask, side);
  const MaskClusters clusters(coarse_mask(mask, side));
  for (int64_t k = kLeastClusters; k <= kMostClusters; ++k) {
    auto parts = parts_in_order(sorted(blocks, clusters.labels(k)), mask.segment_starts, places);
    const OrderScore score = score_of(parts);
    if (!few_parts(parts) || !(score < best_score)) continue;
    best = std::move(parts);
    best_score = score;
  }
  return best;
}

}  // namespace qianli::data
