#include "qianli/infer/sampler.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "qianli/base/error.h"
#include "qianli/base/random.h"

namespace qianli::infer {
namespace {

constexpr float kExcluded = -std::numeric_limits<float>::infinity();

// Several maxima at a time: a chain of comparisons over a vocabulary would take as long as a layer.
float best_of(std::span<const float> scores) {
  constexpr size_t kLanes = 16;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::array<float, kLanes> lanes;
  lanes.fill(kExcluded);
  std::array<int32_t, kLanes> wrong{};  // NaN compares false with everything
  size_t i = 0;
  for (; i + kLanes <= scores.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float score = scores[i + j];
      wrong[j] |= static_cast<int32_t>(!(score < kInfinity));
      lanes[j] = score > lanes[j] ? score : lanes[j];
    }
  }
  for (; i < scores.size(); ++i) {
    wrong[0] |= static_cast<int32_t>(!(scores[i] < kInfinity));
    lanes[0] = std::max(lanes[0], scores[i]);
  }
  const float best = *std::ranges::max_element(lanes);
  if (std::ranges::any_of(wrong, [](int32_t each) { return each != 0; })) {
    const auto bad = std::ranges::find_if(scores, [](float score) { return !(score < kInfinity); });
    throw NonFiniteError("sampler", fmt::format("expected finite logits, got {}", *bad),
                         "check the weights, or use --precision fp32");
  }
  if (best == kExcluded) throw NonFiniteError("sampler", "expected finite logits, all are -inf");
  return best;
}

}  // namespace

void SamplingOptions::validate() const {
  const auto refuse = [](const char* name, const char* range, double value) {
    throw ConfigError("generate", fmt::format("expected {} {}, got {}", name, range, value));
  };
  if (!(temperature >= 0) || std::isinf(temperature)) {
    refuse("temperature", "at least 0 (0 is greedy)", temperature);
  }
  if (top_k < 0) refuse("top-k", "at least 0 (0 keeps all)", static_cast<double>(top_k));
  if (!(top_p >= 0 && top_p <= 1)) refuse("top-p", "between 0 and 1", top_p);
  if (!(repetition_penalty > 0) || std::isinf(repetition_penalty)) {
    refuse("repetition-penalty", "above 0 (1 is none)", repetition_penalty);
  }
  if (!(std::abs(presence_penalty) <= 2))
    refuse("presence-penalty", "between -2 and 2", presence_penalty);
  if (!(std::abs(frequency_penalty) <= 2))
    refuse("frequency-penalty", "between -2 and 2", frequency_penalty);
  if (!(min_p >= 0 && min_p <= 1)) refuse("min-p", "between 0 and 1", min_p);
  for (const auto& [id, bias] : logit_bias) {
    if (!(std::abs(bias) <= 100)) refuse("logit-bias", "between -100 and 100", bias);
  }
}

Sampler::Sampler(const SamplingOptions& options, int64_t vocab_size)
    : options_(options), key_(random_key(options.seed, "sampler")), is_seen_(vocab_size, false) {
  options_.validate();
  for (const auto& [id, bias] : options_.logit_bias) {
    if (id >= 0 && id < vocab_size) continue;
    throw ConfigError("generate", fmt::format("expected ids below the vocabulary of {} in "
                                              "logit-bias, got {}",
                                              vocab_size, id));
  }
}

void Sampler::see(std::span<const int64_t> ids) {
  for (const int64_t id : ids) {
    if (is_seen_.at(id)) continue;
    is_seen_[id] = true;
    seen_.push_back(id);
  }
}

void Sampler::make(int64_t id) {
  see({&id, 1});
  const auto place = std::ranges::find(made_, id, [](const auto& entry) { return entry.first; });
  if (place == made_.end()) {
    made_.emplace_back(id, 1);
  } else {
    ++place->second;
  }
}

void Sampler::process(std::span<float> scores) {
  for (const auto& [id, bias] : options_.logit_bias) scores[id] += static_cast<float>(bias);
  if (!allowed_.empty()) keep_allowed(scores);
  penalise(scores);
  if (options_.greedy()) return;
  const auto temperature = static_cast<float>(options_.temperature);
  if (temperature != 1.0f) {
    for (float& score : scores) score /= temperature;
  }
  if (options_.top_k > 0 && options_.top_k < static_cast<int64_t>(scores.size())) {
    keep_top_k(scores);
  }
  if (options_.top_p < 1.0) keep_top_p(scores);
  if (options_.min_p > 0.0) keep_min_p(scores);
}

void Sampler::keep_allowed(std::span<float> scores) const {
  std::vector<float> kept;
  for (const int64_t id : allowed_) kept.push_back(scores[id]);
  std::ranges::fill(scores, kExcluded);
  for (size_t i = 0; i < kept.size(); ++i) scores[allowed_[i]] = kept[i];
}

void Sampler::penalise(std::span<float> scores) const {
  if (options_.repetition_penalty != 1.0) {
    const auto penalty = static_cast<float>(options_.repetition_penalty);
    for (const int64_t id : seen_) {
      scores[id] = scores[id] < 0 ? scores[id] * penalty : scores[id] / penalty;
    }
  }
  if (options_.presence_penalty == 0.0 && options_.frequency_penalty == 0.0) return;
  for (const auto& [id, count] : made_) {
    scores[id] -= static_cast<float>(options_.presence_penalty +
                                     options_.frequency_penalty * static_cast<double>(count));
  }
}

void Sampler::keep_min_p(std::span<float> scores) const {
  const float lowest = best_of(scores) + static_cast<float>(std::log(options_.min_p));
  for (float& score : scores) {
    if (score < lowest) score = kExcluded;
  }
}

void Sampler::keep_top_k(std::span<float> scores) {
  candidates_.clear();
  for (const float score : scores) candidates_.push_back({score, 0});
  const auto last = candidates_.begin() + (options_.top_k - 1);
  std::nth_element(candidates_.begin(), last, candidates_.end(),
                   [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
  const float lowest = last->score;
  for (float& score : scores) {
    if (score < lowest) score = kExcluded;
  }
}

// transformers sorts ascending, sums the probabilities, and drops tokens while the sum is at most
// 1 - p. Seen from the top that keeps a token while the sum of those above it is below p. A heap
// gives the tokens from the top without sorting a vocabulary whose tail is not looked at.
void Sampler::keep_top_p(std::span<float> scores) {
  const float best = best_of(scores);
  double total = 0;
  candidates_.clear();
  for (size_t id = 0; id < scores.size(); ++id) {
    if (scores[id] == kExcluded) continue;
    total += std::exp(static_cast<double>(scores[id] - best));
    candidates_.push_back({scores[id], static_cast<int64_t>(id)});
  }
  // Among equals the higher id is above, as in a stable ascending sort.
  const auto below = [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score < b.score : a.id < b.id;
  };
  std::make_heap(candidates_.begin(), candidates_.end(), below);
  std::fill(scores.begin(), scores.end(), kExcluded);
  double above = 0;
  do {
    std::pop_heap(candidates_.begin(), candidates_.end(), below);
    const Candidate top = candidates_.back();
    candidates_.pop_back();
    scores[top.id] = top.score;
    above += std::exp(static_cast<double>(top.score - best)) / total;
  } while (!candidates_.empty() && above < options_.top_p);
}

int64_t Sampler::pick(std::span<float> scores, uint64_t position) {
  process(scores);
  const float best = best_of(scores);
  if (options_.greedy()) return std::find(scores.begin(), scores.end(), best) - scores.begin();
  return draw(scores, position);
}

int64_t Sampler::draw(std::span<const float> scores, uint64_t position) const {
  const float best = best_of(scores);
  const auto weight = [&](float score) {
    return score == kExcluded ? 0.0 : std::exp(static_cast<double>(score - best));
  };
  double total = 0;
  for (const float score : scores) total += weight(score);
  const double target = uniform_at(key_, position) * total;
  double sum = 0;
  int64_t last = 0;
  for (size_t id = 0; id < scores.size(); ++id) {
    if (scores[id] == kExcluded) continue;
    last = static_cast<int64_t>(id);
    sum += weight(scores[id]);
    if (sum > target) break;
  }
  return last;  // also where rounding left the sum a hair below the target
}

}  // namespace qianli::infer
