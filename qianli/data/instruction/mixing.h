// In which order the rows of several data sets follow each other, as Hugging Face's `datasets`
// concatenates and interleaves them; bit for bit, so that files come out as MindSpeed-LLM's.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "qianli/base/json.h"

namespace qianli::data {

enum class MixStrategy {
  kConcat,
  kInterleaveUnder,  // until the first set is used up
  kInterleaveOver,   // until all are; sets used up begin again
};
const char* name_of(MixStrategy strategy);
MixStrategy mix_strategy(const std::string& name);  // ConfigError with a suggestion

struct Mixing {
  MixStrategy strategy = MixStrategy::kConcat;
  // Of drawing from each set, by numpy.random.default_rng(seed); empty: one row of each by turns.
  std::vector<double> probabilities;
  uint64_t seed = 1234;

  OrderedJson to_json() const;
};

// ConfigError for probabilities that are not one for each set, not above 0, or whose sum is not 1,
// and for such without interleaving.
void check_mixing(const Mixing& mixing, size_t num_sets);

// Rows as numbers in the concatenation of the sets. DataError for an empty set where rows are
// interleaved.
std::vector<int64_t> mixed_rows(std::span<const int64_t> lengths, const Mixing& mixing);

}  // namespace qianli::data
