// In which order the places of a context group share out the tokens of a microbatch, so that they
// have to send each other little (adaptive context parallelism, MindSpeed
// core/context_parallel/adaptive_context_parallel). Pure arithmetic: ranks that run the same
// program find the same order.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

#include "qianli/data/context_part.h"

namespace qianli::data {

// Attention inside segments. window > 0: of the widest layer, where all have one.
struct ContextMask {
  std::vector<int64_t> segment_starts;  // [segments + 1]: 0 … tokens
  bool causal = true;
  int64_t window = 0;

  int64_t tokens() const { return segment_starts.back(); }
};

// The mask over `side` blocks of neighbouring tokens, as even_starts cuts them: a cell is closed
// where all of it is masked. side <= tokens.
BitGrid coarse_mask(const ContextMask& mask, int64_t side);
// Of the mask for so many places: 8 for each, 32 … 1024 in all, no more than tokens.
int64_t coarse_side(const ContextMask& mask, int64_t places);

// An order in which segments lie in as few places as they can: the longest first, whole places'
// worth by itself, the rest where it leaves least room (best fit decreasing); what fits nowhere is
// cut over the rooms that are left.
std::vector<TokenRun> whole_segments(const std::vector<int64_t>& segment_starts, int64_t places);

// Blocks of a grid whose rows are alike: k-means in the directions of the 10 largest eigenvectors
// of the rows' covariance, at most 100 iterations from rows that a fixed seed draws.
class MaskClusters {
 public:
  explicit MaskClusters(const BitGrid& mask);
  // Of each block, 0 … k - 1 in the order in which they first occur; fewer where clusters ran
  // empty.
  std::vector<int64_t> labels(int64_t k) const;

 private:
  std::vector<double> points_;  // [blocks, columns], column by column
  int64_t columns_ = 0;
};

// How well an order serves: fewer open cells of the places' grid, then more even work.
struct OrderScore {
  int64_t open_cells;
  double spread;  // standard deviation of the tasks that may come to a place

  auto operator<=>(const OrderScore&) const = default;
};
OrderScore order_score(const BitGrid& places);

// The parts of each place in the best of these orders: that of the tokens, whole segments, and
// blocks of the coarse mask sorted by their clusters for k = 2 … 8. An order that cuts a place's
// tokens into more than 8 parts is left out: every pair of parts is a call of a kernel.
std::vector<PlaceParts> adaptive_parts(const ContextMask& mask, int64_t places);

}  // namespace qianli::data
