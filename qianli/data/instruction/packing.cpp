#include "qianli/data/instruction/packing.h"

#include <map>
#include <stdexcept>

namespace qianli::data {

std::vector<std::vector<int64_t>> pack_bins(std::span<const int32_t> lengths, int64_t capacity) {
  std::map<int64_t, std::vector<int64_t>> waiting;  // by length, the last one on top
  for (size_t i = 0; i < lengths.size(); ++i)
    waiting[lengths[i]].push_back(static_cast<int64_t>(i));
  std::vector<std::vector<int64_t>> bins;
  while (!waiting.empty()) {
    auto& bin = bins.emplace_back();
    int64_t room = capacity;
    while (true) {
      auto above = waiting.upper_bound(room);
      if (above == waiting.begin()) break;
      const auto largest = std::prev(above);
      bin.push_back(largest->second.back());
      largest->second.pop_back();
      room -= largest->first;
      if (largest->second.empty()) waiting.erase(largest);
    }
    if (bin.empty()) throw std::logic_error("a sample is longer than a bin");
  }
  return bins;
}

}  // namespace qianli::data
