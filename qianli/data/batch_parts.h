// What the parts of a batch are made of: the tokens of a rank, or of a slice.
#pragma once

#include <cstdint>
#include <vector>

#include "qianli/data/batch.h"

namespace qianli::data {

// values[i] of each index.
template <class T>
std::vector<T> taken(const std::vector<T>& values, const std::vector<int64_t>& indices) {
  std::vector<T> out;
  out.reserve(indices.size());
  for (const int64_t index : indices) out.push_back(values[static_cast<size_t>(index)]);
  return out;
}

// Of some tokens of a whole batch with these segments, what lies 1 to `depths` tokens behind them.
std::vector<Ahead> ahead_of(const Batch& batch, const std::vector<int64_t>& segment_starts,
                            const std::vector<int64_t>& tokens, int64_t depths);

}  // namespace qianli::data
