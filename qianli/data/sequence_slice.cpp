#include "qianli/data/sequence_slice.h"

#include <algorithm>
#include <memory>

#include "qianli/data/batch_parts.h"
#include "qianli/data/context_deal.h"

namespace qianli::data {

Batch slice_of(const Batch& batch, int64_t begin, int64_t end, int64_t depths) {
  auto slice = std::make_shared<SequenceSlice>();
  slice->segment_starts = segment_starts(batch);
  const int64_t length = batch.sequence_length;
  Batch part{.sequences = batch.sequences,
             .sequence_length = end - begin,
             .sample_indices = batch.sample_indices,
             .sample_starts = batch.sample_starts};
  for (size_t s = 0; s + 1 < slice->segment_starts.size(); ++s) {
    const int64_t from = slice->segment_starts[s], to = slice->segment_starts[s + 1];
    const int64_t row = std::min(from / length, std::max<int64_t>(batch.sequences - 1, 0));
    const int64_t first = std::clamp(row * length + begin, from, to),
                  last = std::clamp(row * length + end, first, to);
    slice->positions.push_back(first - from);
    for (int64_t token = first; token < last; ++token) slice->tokens.push_back(token);
    part.segment_ends.push_back(static_cast<int64_t>(slice->tokens.size()));
  }
  part.tokens = taken(batch.tokens, slice->tokens);
  part.labels = taken(batch.labels, slice->tokens);
  part.loss_mask = taken(batch.loss_mask, slice->tokens);
  part.positions = taken(batch.positions, slice->tokens);
  part.max_position = *std::ranges::max_element(batch.positions);
  part.ahead = ahead_of(batch, slice->segment_starts, slice->tokens, depths);
  part.slice = std::move(slice);
  return part;
}

}  // namespace qianli::data
