// Parts of the flat buffers: which a rank keeps, updates or writes. What it keeps of a buffer lies
// in a compact tensor, one range behind the other.
#pragma once

#include <cstdint>
#include <vector>

namespace qianli::nn {

struct FlatRange {
  int64_t begin = 0, end = 0;  // elements of the flat buffer

  int64_t count() const { return end - begin; }
  bool operator==(const FlatRange&) const = default;
};

class FlatRanges {
 public:
  FlatRanges() = default;
  // Sorted and disjoint; empty ones are dropped.
  explicit FlatRanges(const std::vector<FlatRange>& ranges);

  int64_t count() const { return parts_.empty() ? 0 : parts_.back().place + parts_.back().count; }

  struct Part {
    int64_t begin = 0, count = 0;  // in the flat buffer
    int64_t place = 0;             // in the compact tensor

    FlatRange range() const { return {begin, begin + count}; }
  };
  const std::vector<Part>& parts() const { return parts_; }
  // What lies within [begin, end).
  std::vector<Part> within(int64_t begin, int64_t end) const;

 private:
  std::vector<Part> parts_;
};

// The `index`-th of `count` slices of a range: equally long where `count` divides its length, else
// the last has the rest.
FlatRange slice_of(const FlatRange& range, int64_t count, int64_t index);

}  // namespace qianli::nn
