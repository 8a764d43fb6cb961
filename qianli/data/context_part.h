// Runs of tokens that the ranks of a context group hold, and who has to see whose.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

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

// Which blocks of keys (columns) the blocks of queries (rows) see anything of.
class CellGrid {
 public:
  explicit CellGrid(int64_t side) : side_(side), open_(static_cast<size_t>(side * side)) {}

  int64_t side() const { return side_; }
  bool open(int64_t query, int64_t key) const { return open_[index(query, key)] != 0; }
  void open_up(int64_t query, int64_t key) { open_[index(query, key)] = 1; }
  int64_t count() const;

 private:
  size_t index(int64_t query, int64_t key) const {
    return static_cast<size_t>(query * side_ + key);
  }
  int64_t side_;
  std::vector<char> open_;
};

// Of places as blocks.
CellGrid open_cells(const std::vector<PlaceParts>& places, bool causal, int64_t window);

// The parts of `places`, which share out tokens evenly in this order of runs.
std::vector<PlaceParts> parts_in_order(const std::vector<TokenRun>& order,
                                       const std::vector<int64_t>& segment_starts, int64_t places);

}  // namespace qianli::data
