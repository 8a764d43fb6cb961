#include "qianli/data/token_order.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qianli::data {
namespace {

constexpr int64_t kMostSide = 1024, kLeastSide = 32, kBlocksOfPlace = 8;
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

// The best of the orders so far, the first of equals.
class Choice {
 public:
  Choice(const ContextMask& mask, int64_t places) : mask_(mask), places_(places) {}

  void offer(const std::vector<TokenRun>& order) {
    auto parts = parts_in_order(order, mask_.segment_starts, places_);
    const auto few = [](const auto& own) { return own.size() <= kMostParts; };
    const OrderScore score = order_score(open_cells(parts, mask_.causal, mask_.window));
    if (!best_.empty() && (!std::ranges::all_of(parts, few) || !(score < score_))) return;
    best_ = std::move(parts);
    score_ = score;
  }
  bool done() const { return score_.open_cells <= places_; }
  std::vector<PlaceParts> best() { return std::move(best_); }

 private:
  const ContextMask& mask_;
  int64_t places_;
  std::vector<PlaceParts> best_;
  OrderScore score_{};
};

}  // namespace

BitGrid coarse_mask(const ContextMask& mask, int64_t side) {
  std::vector<PlaceParts> blocks = parts_in_order({{0, mask.tokens()}}, mask.segment_starts, side);
  return open_cells(blocks, mask.causal, mask.window);
}

int64_t coarse_side(const ContextMask& mask, int64_t places) {
  return std::min(std::clamp(kBlocksOfPlace * places, kLeastSide, kMostSide), mask.tokens());
}

OrderScore order_score(const BitGrid& places) {
  std::vector<double> tasks(static_cast<size_t>(places.side()));
  for (int64_t i = 0; i < places.side(); ++i) {
    for (int64_t j = 0; j < places.side(); ++j) {
      if (!places.at(i, j)) continue;
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
  Choice choice(mask, places);
  choice.offer({{0, mask.tokens()}});
  // Until nobody needs anything from another.
  if (choice.done()) return choice.best();
  choice.offer(whole_segments(mask.segment_starts, places));
  if (choice.done()) return choice.best();
  const int64_t side = coarse_side(mask, places);
  const auto blocks = blocks_of(mask, side);
  const MaskClusters clusters(coarse_mask(mask, side));
  for (int64_t k = kLeastClusters; k <= kMostClusters; ++k)
    choice.offer(sorted(blocks, clusters.labels(k)));
  return choice.best();
}

}  // namespace qianli::data
