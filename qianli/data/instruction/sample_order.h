// The order in which samples of several data sets are written, and which of them are packed
// together. Internal to prepare.cpp.
#pragma once

#include <span>
#include <vector>

#include "qianli/base/file.h"
#include "qianli/data/instruction/mixing.h"

namespace qianli::data {

// Of a part: PART.row.{bin,idx} has the row of each of its samples, counted from 0.
struct PartRows {
  fs::path prefix;
  size_t set = 0;    // parts of a set stand one behind the other, sets in their order
  int64_t rows = 0;  // that could be used, whether or not their samples are too long
};
fs::path row_prefix(const fs::path& part);

struct SampleOrder {
  std::vector<int64_t> samples;  // by their number among those of all parts
  std::vector<size_t> ends;      // of the groups that are packed apart; the last one: all
};
// Rows mixed, then cut into `num_groups` groups of equally many, and one more of what is left over
// (MindSpeed-LLM's --n-subs).
SampleOrder sample_order(std::span<const PartRows> parts, size_t num_sets, const Mixing& mixing,
                         int64_t num_groups);

}  // namespace qianli::data
