#include "qianli/data/blend.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/data/numpy_random.h"

namespace qianli::data {
namespace {

std::optional<double> number(const std::string& item) {
  const std::string text(trim(item));
  if (text.empty()) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  return *end == '\0' ? std::optional(value) : std::nullopt;
}

void check_count(size_t corpora) {
  if (corpora == 0 || corpora >= static_cast<size_t>(std::numeric_limits<int16_t>::max())) {
    throw ConfigError("data",
                      fmt::format("expected 1 to 32766 corpora in a blend, got {}", corpora));
  }
}

// One greedy pass: the corpus with the largest weight * max(i, 1) - used; the first one on ties.
class Greedy {
 public:
  explicit Greedy(std::vector<double> weights)
      : weights_(std::move(weights)), used_(weights_.size(), 0) {}

  template <class Takes>
  void step(const Takes& takes_part) {
    const double position = std::max<double>(1.0, static_cast<double>(dataset_.size()));
    size_t best = weights_.size();
    double largest = 0;
    for (size_t j = 0; j < weights_.size(); ++j) {
      if (!takes_part(j, used_[j])) continue;
      const double error = weights_[j] * position - static_cast<double>(used_[j]);
      if (best == weights_.size() || error > largest) {
        best = j;
        largest = error;
      }
    }
    dataset_.push_back(static_cast<int16_t>(best));
    sample_.push_back(used_[best]++);
  }
  void reserve(int64_t samples) {
    dataset_.reserve(static_cast<size_t>(samples));
    sample_.reserve(static_cast<size_t>(samples));
  }
  BlendOrder take() {
    return {IndexArray::own(std::move(dataset_)), IndexArray::own(std::move(sample_))};
  }

 private:
  std::vector<double> weights_;
  std::vector<int64_t> used_;
  std::vector<int16_t> dataset_;
  std::vector<int64_t> sample_;
};

}  // namespace

std::vector<WeightedPath> parse_data_paths(std::span<const std::string> items) {
  std::vector<WeightedPath> paths;
  size_t numbers = 0;
  for (size_t i = 0; i < items.size(); i += 2) numbers += number(items[i]).has_value();
  const bool pairs = items.size() % 2 == 0 && numbers > 0;
  if (!pairs) {
    for (const std::string& item : items) paths.push_back({std::string(trim(item)), std::nullopt});
    return paths;
  }
  if (numbers != items.size() / 2) {
    throw ConfigError("data",
                      fmt::format("expected a weight before every path or before none, got '{}'",
                                  join(items, " ")),
                      "write pairs like: 0.3 first 0.7 second");
  }
  for (size_t i = 0; i < items.size(); i += 2) {
    const double weight = *number(items[i]);
    if (!(weight > 0) || !std::isfinite(weight)) {
      throw ConfigError(
          "data", fmt::format("expected a positive weight for {}, got {}", items[i + 1], items[i]));
    }
    paths.push_back({std::string(trim(items[i + 1])), weight});
  }
  return paths;
}

std::vector<double> normalise(std::span<const double> weights) {
  const double sum = numpy_sum(weights);
  std::vector<double> result(weights.begin(), weights.end());
  for (double& weight : result) weight /= sum;
  return result;
}

BlendSizes blend_sizes(std::span<const double> normalised_weights, int64_t samples) {
  BlendSizes sizes;
  for (const double weight : normalised_weights) {
    const double share = std::ceil(static_cast<double>(samples) * weight);
    sizes.targets.push_back(static_cast<int64_t>(share));
    // Half a percent more; written as the reference computes it, 1 + 0.5 / 100.
    sizes.prepared.push_back(static_cast<int64_t>(std::ceil(share * (1 + 0.5 / 100.0))));
    sizes.total += sizes.targets.back();
  }
  return sizes;
}

BlendOrder blend_by_weight(std::span<const double> weights, int64_t samples) {
  check_count(weights.size());
  Greedy greedy(std::vector<double>(weights.begin(), weights.end()));
  greedy.reserve(samples);
  for (int64_t i = 0; i < samples; ++i) greedy.step([](size_t, int64_t) { return true; });
  return greedy.take();
}

BlendOrder blend_exhaustively(std::span<const int64_t> sizes) {
  check_count(sizes.size());
  const int64_t total = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  std::vector<double> weights;
  for (const int64_t size : sizes) {
    weights.push_back(static_cast<double>(size) / static_cast<double>(total));
  }
  Greedy greedy(std::move(weights));
  greedy.reserve(total);
  for (int64_t i = 0; i < total; ++i) {
    greedy.step([&](size_t j, int64_t used) { return used < sizes[j]; });
  }
  return greedy.take();
}

}  // namespace qianli::data
