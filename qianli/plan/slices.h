// Where Seq1F1B cuts a sequence.
#pragma once

#include <cstdint>
#include <vector>

namespace qianli::plan {

enum class SliceBalance {
  kAverage,  // slices of one length: later ones attend to more keys and take longer
  kCompute,  // slices of equal work: later ones are shorter
};

struct SliceOptions {
  int64_t sequence_length = 1;
  int64_t slices = 1;
  SliceBalance balance = SliceBalance::kAverage;
  int64_t multiple = 1;  // slices begin at multiples of this (ranks that share a sequence)
  // Work of a token by itself, and with one key that it attends to; in any one unit.
  double token = 1, key = 0;
};

// The lengths of the slices, which sum to the sequence's. Throws ConfigError where a slice would be
// empty.
std::vector<int64_t> slice_lengths(const SliceOptions& options);

// A slice's work relative to the mean of all, for Times::slices.
std::vector<double> slice_work(const SliceOptions& options, const std::vector<int64_t>& lengths);

}  // namespace qianli::plan
