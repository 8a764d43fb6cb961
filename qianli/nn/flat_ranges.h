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
  };
  const std::vector<Part>& parts() const { return parts_; }
  // What lies within [begin, end).
  std::vector<Part> within(int64_t begin, int64_t end) const;

 private:
  std::vector<Part> parts_;
};

// How a buffer of `size` elements is dealt out to `ranks` ranks: it is cut into buckets, each of
// which is communicated at once, and every rank gets an equal slice of each bucket (ZeRO,
// Rajbhandari et al. 2020; Megatron-core's distributed optimizer). A buffer of padded_size()
// elements makes all slices of a bucket equally long.
struct FlatSharding {
  int64_t ranks = 1;
  int64_t bucket_elements = 40'000'000;

  int64_t padded_size(int64_t size) const;
  std::vector<FlatRange> buckets(int64_t size) const;
  FlatRange slice(const FlatRange& bucket, int64_t rank) const;
  FlatRanges slices(int64_t size, int64_t rank) const;
};

}  // namespace qianli::nn
