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

FlatRange slice_of(const FlatRange& range, int64_t count, int64_t index) {
  const auto border = [&](int64_t i) { return range.begin + range.count() / count * i; };
  return {border(index), index + 1 == count ? range.end : border(index + 1)};
}

}  // namespace qianli::nn
