#include "qianli/data/instruction/mixing.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "qianli/base/error.h"
#include "qianli/base/stop.h"
#include "qianli/base/strings.h"
#include "qianli/data/numpy_generator.h"

namespace qianli::data {
namespace {

constexpr std::pair<MixStrategy, const char*> kStrategies[] = {
    {MixStrategy::kConcat, "concat"},
    {MixStrategy::kInterleaveUnder, "interleave_under"},
    {MixStrategy::kInterleaveOver, "interleave_over"}};

class Interleaving {
 public:
  Interleaving(std::span<const int64_t> lengths, const Mixing& mixing)
      : lengths_(lengths), mixing_(mixing), firsts_(lengths.size()) {
    std::exclusive_scan(lengths.begin(), lengths.end(), firsts_.begin(), int64_t{0});
  }

  std::vector<int64_t> rows() const { return mixing_.probabilities.empty() ? turns() : drawn(); }

 private:
  bool over() const { return mixing_.strategy == MixStrategy::kInterleaveOver; }

  // Whole rounds: as many as the shortest set has rows, or the longest.
  std::vector<int64_t> turns() const {
    const auto [least, most] = std::minmax_element(lengths_.begin(), lengths_.end());
    std::vector<int64_t> rows;
    for (int64_t i = 0; i < (over() ? *most : *least); ++i) {
      for (size_t set = 0; set < lengths_.size(); ++set)
        rows.push_back(firsts_[set] + i % lengths_[set]);
    }
    return rows;
  }

  std::vector<int64_t> drawn() const {
    NumpyGenerator generator(mixing_.seed);
    const auto cumulative = cumulative_probabilities(mixing_.probabilities);
    std::vector<int64_t> rows, next(lengths_.size());
    std::vector<bool> used_up(lengths_.size());
    const auto done = [&] {
      const auto count = std::count(used_up.begin(), used_up.end(), true);
      return over() ? count == std::ssize(used_up) : count > 0;
    };
    while (!done()) {
      throw_if_stopped("data");
      const size_t set = generator.choice(cumulative);
      rows.push_back(firsts_[set] + next[set]);
      if (++next[set] < lengths_[set]) continue;
      used_up[set] = true;
      next[set] = 0;
    }
    return rows;
  }

  std::span<const int64_t> lengths_;
  const Mixing& mixing_;
  std::vector<int64_t> firsts_;
};

}  // namespace

const char* name_of(MixStrategy strategy) {
  return std::find_if(std::begin(kStrategies), std::end(kStrategies),
                      [&](const auto& entry) { return entry.first == strategy; })
      ->second;
}

MixStrategy mix_strategy(const std::string& name) {
  std::vector<std::string> known;
  for (const auto& [strategy, text] : kStrategies) {
    if (name == text) return strategy;
    known.emplace_back(text);
  }
  throw ConfigError(
      "data",
      fmt::format("expected a strategy of mixing, got '{}'{}", name, suggestion(name, known)),
      "known are " + join(known, ", "));
}

OrderedJson Mixing::to_json() const {
  return {{"strategy", name_of(strategy)}, {"probabilities", probabilities}, {"seed", seed}};
}

void check_mixing(const Mixing& mixing, size_t num_sets) {
  const auto& shares = mixing.probabilities;
  if (shares.empty()) return;
  if (mixing.strategy == MixStrategy::kConcat)
    throw ConfigError("data",
                      "expected probabilities with --mix-strategy interleave_under or "
                      "interleave_over, got them with concat");
  if (shares.size() != num_sets) {
    throw ConfigError("data", fmt::format("expected a probability for each of {} data sets, got {}",
                                          num_sets, shares.size()));
  }
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  const bool positive = std::all_of(shares.begin(), shares.end(), [](double p) { return p > 0; });
  if (!positive || !(std::abs(sum - 1) <= 1e-8)) {
    throw ConfigError(
        "data", fmt::format("expected probabilities above 0 with the sum 1, got the sum {}", sum));
  }
}

std::vector<int64_t> mixed_rows(std::span<const int64_t> lengths, const Mixing& mixing) {
  if (mixing.strategy == MixStrategy::kConcat) {
    std::vector<int64_t> rows(
        static_cast<size_t>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0})));
    std::iota(rows.begin(), rows.end(), 0);
    return rows;
  }
  if (std::find(lengths.begin(), lengths.end(), 0) != lengths.end())
    throw DataError("data", "expected rows in every data set that is interleaved, got one without");
  return Interleaving(lengths, mixing).rows();
}

}  // namespace qianli::data
