// What training sees: plain arrays, a pure function of (seed, sample index).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace qianli::data {

class ContextDeal;
struct SequenceSlice;

// What lies some tokens behind each position in its segment; 0 where that is behind the end.
struct Ahead {
  std::vector<int64_t> tokens, labels;
  std::vector<float> loss_mask;
};

// `sequences` rows of `sequence_length` positions, row-major.
struct Batch {
  int64_t sequences = 0;
  int64_t sequence_length = 0;
  std::vector<int64_t> tokens;
  std::vector<int64_t> labels;   // the target of each position; 0 where loss_mask is 0 for padding
  std::vector<float> loss_mask;  // 1 where the position counts
  std::vector<int64_t> positions;
  // Ends of the attention segments in the flattened batch (like cu_seqlens without the leading 0),
  // in ascending order; every row end is an end. Empty: one causal segment per row.
  std::vector<int64_t> segment_ends;
  // Global numbers of the samples, for error messages.
  std::vector<int64_t> sample_indices;
  // Where samples of different lengths begin in the flattened batch, one for each number above.
  // Empty: every row is a sample.
  std::vector<int64_t> sample_starts;

  // Where ranks share the sequences (deal_out), how; the rows are then one rank's, in its order.
  std::shared_ptr<const ContextDeal> context;
  int64_t context_rank = 0;        // which one, the first
  int64_t context_neighbours = 1;  // of so many whose rows these are
  // Where these are slices of the sequences (slice_of), which; the rows are then the slices.
  std::shared_ptr<const SequenceSlice> slice;
  // Of both, from the whole sequences; sample_starts stay those of the whole, too:
  std::vector<Ahead> ahead;  // [depth]: depth + 1 tokens further on
  int64_t max_position = 0;
  std::vector<double> counted;  // tokens whose mask is set (counted_tokens)
};

}  // namespace qianli::data
