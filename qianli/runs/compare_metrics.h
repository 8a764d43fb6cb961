// The numbers of two runs, step by step: where they part, and how far they go.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qianli/runs/metrics_reader.h"

namespace qianli::runs {

// Absent where a run does not have the key at that step.
struct ValuePair {
  std::optional<double> a, b;

  // |a - b| as a share of the larger magnitude: 0 for equal ones and two NaNs, infinite where only
  // one is there or finite.
  double relative() const;
};

// Of one key of metrics.jsonl, over all steps that both runs have.
struct KeyDifference {
  std::string key;
  int64_t steps = 0;       // on which it is beyond the tolerance
  int64_t first_step = 0;  // of these
  ValuePair first;
  int64_t largest_step = 0;  // where it is largest
  double largest = 0;        // relative
};

struct StepSpan {
  int64_t steps = 0, first = 0, last = 0;
};

// One step of those that show how the difference grows.
struct GrowthLine {
  int64_t step = 0;
  std::vector<ValuePair> values;  // of MetricsComparison::followed
};

struct MetricsComparison {
  int64_t steps = 0;                          // that both have
  StepSpan only_a, only_b;                    // steps that one has
  bool cut_off_a = false, cut_off_b = false;  // half a line at the end was left out
  // Keys that are beyond the tolerance somewhere: the earliest first; of several, loss, then
  // grad_norm, then by name.
  std::vector<KeyDifference> keys;
  // The key that differs first, and the loss: on the 1st, 2nd, 4th, 8th … common step from there
  // on, and the last.
  std::vector<std::string> followed;
  std::vector<GrowthLine> growth;

  bool equal() const { return keys.empty() && only_a.steps == 0 && only_b.steps == 0; }
};

// Keys that measure time and memory, not the model: tokens_per_second, step_seconds, mfu,
// memory_bytes.
bool is_timing(const std::string& key);

// All keys but those of timing. Reads both to their ends, a line of each at a time.
MetricsComparison compare_metrics(MetricsReader a, MetricsReader b, double tolerance);

}  // namespace qianli::runs
