// Mixing corpora by weight, in the order of Megatron-core's BlendedDataset (release 0.12).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "qianli/data/index_array.h"

namespace qianli::data {

// The items of a --data-path list: prefixes, with or without weights.
struct WeightedPath {
  std::string path;
  std::optional<double> weight;
};
// All items have a weight or none has. An even list whose first, third, ... items are all numbers
// is pairs of weight and path. ConfigError when only some of them are numbers, or a weight is not
// positive.
std::vector<WeightedPath> parse_data_paths(std::span<const std::string> items);

// weights / numpy_sum(weights).
std::vector<double> normalise(std::span<const double> weights);

// How many samples each corpus gives to a blend of about `samples`, and how many are prepared so
// that rounding never runs out of them.
struct BlendSizes {
  std::vector<int64_t> targets;
  std::vector<int64_t> prepared;
  int64_t total = 0;  // sum of the targets: the size of the blend
};
BlendSizes blend_sizes(std::span<const double> normalised_weights, int64_t samples);

// dataset[i]: the corpus of sample i (int16); sample[i]: its sample there (int64).
struct BlendOrder {
  IndexArray dataset;
  IndexArray sample;
  int64_t size() const { return dataset.size(); }
};
// Sample i comes from the corpus that is furthest behind its share.
BlendOrder blend_by_weight(std::span<const double> weights, int64_t samples);
// The same until every corpus is used up.
BlendOrder blend_exhaustively(std::span<const int64_t> sizes);

}  // namespace qianli::data
