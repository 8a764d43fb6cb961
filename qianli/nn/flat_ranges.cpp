#include "qianli/nn/flat_ranges.h"

#include <algorithm>

namespace qianli::nn {

FlatRanges::FlatRanges(const std::vector<FlatRange>& ranges) {
  for (const FlatRange& range : ranges) {
    if (range.count() > 0) parts_.push_back({range.begin, range.count(), count()});
  }
}

std::vector<FlatRanges::Part> FlatRanges::within(int64_t begin, int64_t end) const {
  std::vector<Part> found;
  auto part =
      std::ranges::upper_bound(parts_, begin, {}, [](const Part& p) { return p.begin + p.count; });
  for (; part != parts_.end() && part->begin < end; ++part) {
    const int64_t first = std::max(part->begin, begin);
    const int64_t last = std::min(part->begin + part->count, end);
    found.push_back({first, last - first, part->place + first - part->begin});
  }
  return found;
}

namespace {

constexpr int64_t kSliceAlignment = 64;  // elements

int64_t rounded_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

}  // namespace

int64_t FlatSharding::padded_size(int64_t size) const {
  return ranks == 1 ? size : rounded_up(size, kSliceAlignment * ranks);
}

std::vector<FlatRange> FlatSharding::buckets(int64_t size) const {
  const int64_t step = rounded_up(std::max<int64_t>(bucket_elements, 1), kSliceAlignment * ranks);
  std::vector<FlatRange> buckets;
  for (int64_t begin = 0; begin < size; begin += step) {
    buckets.push_back({begin, std::min(begin + step, size)});
  }
  return buckets;
}

FlatRange FlatSharding::slice(const FlatRange& bucket, int64_t rank) const {
  const auto border = [&](int64_t r) { return bucket.begin + bucket.count() / ranks * r; };
  return {border(rank), rank + 1 == ranks ? bucket.end : border(rank + 1)};
}

FlatRanges FlatSharding::slices(int64_t size, int64_t rank) const {
  if (ranks == 1) return FlatRanges({{0, size}});
  std::vector<FlatRange> own;
  for (const FlatRange& bucket : buckets(size)) own.push_back(slice(bucket, rank));
  return FlatRanges(own);
}

}  // namespace qianli::nn
