// Runs of tokens that the ranks of a context group hold, and who has to see whose.
#pragma once

#include <cstdint>
#include <vector>

#include "qianli/base/bit_grid.h"

namespace qianli::data {

// The rows that a place holds of each segment: one run of neighbours, perhaps empty.
struct ContextPart {
  std::vector<int64_t> starts;     // [segments + 1]: rows of the part
  std::vector<int64_t> positions;  // [segments]: of a run's first row in its segment

  int64_t rows() const { return starts.back(); }
};
using PlaceParts = std::vector<ContextPart>;  // of one place

// `count` things for `ranks`: rank i has those from starts[i] on, ⌊count / ranks⌋ or one more.
std::vector<int64_t> even_starts(int64_t count, int64_t ranks);

// Tokens [begin, end) of a microbatch, or positions of a segment.
struct TokenRun {
  int64_t begin, end;

  bool operator==(const TokenRun&) const = default;
};

// Whether any of the queries sees a key: both are positions of one segment. causal: only keys up to
// the query's own position; window > 0: none that lies so many positions back or more.
bool sees(const TokenRun& queries, const TokenRun& keys, bool causal, int64_t window);
bool meet(const ContextPart& queries, const ContextPart& keys, bool causal, int64_t window);

// Which places' keys (columns) the queries of places (rows) see anything of.
BitGrid open_cells(const std::vector<PlaceParts>& places, bool causal, int64_t window);

// The parts of `places`, which share out tokens evenly in this order of runs.
std::vector<PlaceParts> parts_in_order(const std::vector<TokenRun>& order,
                                       const std::vector<int64_t>& segment_starts, int64_t places);

}  // namespace qianli::data
