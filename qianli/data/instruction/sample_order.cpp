#include "qianli/data/instruction/sample_order.h"

#include <algorithm>
#include <numeric>

#include "qianli/formats/indexed_dataset.h"

namespace qianli::data {
namespace {

// The first sample of each row of all parts, and one more entry: the number of samples.
std::vector<int64_t> first_samples(std::span<const PartRows> parts) {
  std::vector<int64_t> firsts = {0};
  for (const PartRows& part : parts) {
    const size_t base = firsts.size();
    firsts.resize(base + static_cast<size_t>(part.rows));
    const auto rows = formats::IndexedDataset::open(row_prefix(part.prefix));
    for (size_t i = 0; i < rows.size(); ++i) {
      int32_t row = 0;
      rows.sequence(i, 0, std::span<int32_t>(&row, 1));
      ++firsts.at(base + static_cast<size_t>(row));
    }
  }
  std::partial_sum(firsts.begin(), firsts.end(), firsts.begin());
  return firsts;
}

}  // namespace

fs::path row_prefix(const fs::path& part) { return part.string() + ".row"; }

SampleOrder sample_order(std::span<const PartRows> parts, size_t num_sets, const Mixing& mixing,
                         int64_t num_groups) {
  std::vector<int64_t> lengths(num_sets);
  for (const PartRows& part : parts) lengths[part.set] += part.rows;
  const auto firsts = first_samples(parts);
  const auto rows = mixed_rows(lengths, mixing);
  const auto group = std::max<size_t>(rows.size() / static_cast<size_t>(num_groups), 1);
  SampleOrder order;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i > 0 && i % group == 0) order.ends.push_back(order.samples.size());
    const auto row = static_cast<size_t>(rows[i]);
    for (int64_t sample = firsts[row]; sample < firsts[row + 1]; ++sample)
      order.samples.push_back(sample);
  }
  order.ends.push_back(order.samples.size());
  return order;
}

}  // namespace qianli::data
