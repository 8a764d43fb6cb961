#include "qianli/runs/compare_metrics.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

namespace qianli::runs {
namespace {

constexpr std::array<const char*, 4> kTiming = {"memory_bytes", "mfu", "step_seconds",
                                                "tokens_per_second"};
constexpr char kLoss[] = "loss";

// Of keys that differ on the same step, the one that says most comes first.
int rank_of(const std::string& key) { return key == kLoss ? 0 : key == "grad_norm" ? 1 : 2; }

bool comes_before(const KeyDifference& a, const KeyDifference& b) {
  const auto place = [](const KeyDifference& d) {
    return std::tuple(d.first_step, rank_of(d.key), std::string_view(d.key));
  };
  return place(a) < place(b);
}

using Values = std::map<std::string, ValuePair>;

Values values_of(const MetricsRecord& a, const MetricsRecord& b) {
  Values values;
  for (const auto& [key, value] : a.values) values[key].a = value;
  for (const auto& [key, value] : b.values) values[key].b = value;
  std::erase_if(values, [](const auto& entry) { return is_timing(entry.first); });
  return values;
}

class Comparer {
 public:
  explicit Comparer(double tolerance) : tolerance_(tolerance) {}

  void both(const MetricsRecord& a, const MetricsRecord& b) {
    ++found_.steps;
    Values values = values_of(a, b);
    for (const auto& [key, pair] : values) note(a.step, key, pair);
    if (keys_.empty()) return;
    if (found_.followed.empty()) follow();
    const bool power = std::has_single_bit(++since_first_);
    last_ = line_of(a.step, values);
    if (power) found_.growth.push_back(last_);
  }
  static void only(StepSpan& span, int64_t step) {
    if (span.steps++ == 0) span.first = step;
    span.last = step;
  }

  MetricsComparison run(MetricsReader& a, MetricsReader& b) {
    auto of_a = a.next(), of_b = b.next();
    while (of_a || of_b) {
      const bool take_a = of_a && (!of_b || of_a->step <= of_b->step);
      const bool take_b = of_b && (!of_a || of_b->step <= of_a->step);
      if (take_a && take_b)
        both(*of_a, *of_b);
      else
        take_a ? only(found_.only_a, of_a->step) : only(found_.only_b, of_b->step);
      if (take_a) of_a = a.next();
      if (take_b) of_b = b.next();
    }
    return finished();
  }

 private:
  void note(int64_t step, const std::string& key, const ValuePair& pair) {
    const double relative = pair.relative();
    if (relative <= tolerance_) return;
    const auto [place, fresh] = keys_.try_emplace(key);
    KeyDifference& difference = place->second;
    if (fresh) difference = {.key = key, .first_step = step, .first = pair};
    ++difference.steps;
    if (relative > difference.largest) {
      difference.largest = relative;
      difference.largest_step = step;
    }
  }

  void follow() {
    const auto headline = std::ranges::min_element(
        keys_, [](const auto& a, const auto& b) { return comes_before(a.second, b.second); });
    found_.followed = {headline->first};
    if (headline->first != kLoss) found_.followed.push_back(kLoss);
  }

  GrowthLine line_of(int64_t step, Values& values) const {
    GrowthLine line{.step = step};
    for (const std::string& key : found_.followed) line.values.push_back(values[key]);
    return line;
  }

  MetricsComparison finished() {
    if (!found_.growth.empty() && found_.growth.back().step != last_.step)
      found_.growth.push_back(last_);
    for (auto& [key, difference] : keys_) found_.keys.push_back(std::move(difference));
    std::ranges::sort(found_.keys, comes_before);
    return std::move(found_);
  }

  double tolerance_;
  MetricsComparison found_;
  std::map<std::string, KeyDifference> keys_;
  uint64_t since_first_ = 0;  // common steps from the first difference on
  GrowthLine last_;
};

}  // namespace

double ValuePair::relative() const {
  if (!a || !b) return a || b ? std::numeric_limits<double>::infinity() : 0;
  if (*a == *b || (std::isnan(*a) && std::isnan(*b))) return 0;
  if (!std::isfinite(*a) || !std::isfinite(*b)) return std::numeric_limits<double>::infinity();
  const double magnitude = std::max(std::abs(*a), std::abs(*b));
  const double apart = std::abs(*a - *b);  // of huge numbers it may be infinite
  return std::isfinite(apart) ? apart / magnitude : std::abs(*a / magnitude - *b / magnitude);
}

bool is_timing(const std::string& key) { return std::ranges::find(kTiming, key) != kTiming.end(); }

MetricsComparison compare_metrics(MetricsReader a, MetricsReader b, double tolerance) {
  MetricsComparison found = Comparer(tolerance).run(a, b);
  found.cut_off_a = a.cut_off();
  found.cut_off_b = b.cut_off();
  return found;
}

}  // namespace qianli::runs
