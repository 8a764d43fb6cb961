// Slices of the sequences of a microbatch that go through the model one after the other (Seq1F1B):
// slice i has the same run of positions of every sequence. Pure arithmetic.
#pragma once

#include <cstdint>
#include <vector>

#include "qianli/data/batch.h"

namespace qianli::data {

struct SequenceSlice {
  std::vector<int64_t> tokens;          // of the whole microbatch, that are in the slice
  std::vector<int64_t> segment_starts;  // of the whole microbatch: [segments + 1], 0 … tokens
  // [segments]: where the slice's rows begin in each. Segments of which it has none come with it.
  std::vector<int64_t> positions;
};

// Positions [begin, end) of each row of a whole batch, with `depths` tokens ahead (Batch::ahead).
// Its segment_ends are those of the slice's runs, one for each segment of the batch.
Batch slice_of(const Batch& batch, int64_t begin, int64_t end, int64_t depths);

}  // namespace qianli::data
