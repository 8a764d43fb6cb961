// What `compare` found, for people and as JSON.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/convert/compare_models.h"
#include "qianli/runs/compare_configs.h"
#include "qianli/runs/compare_metrics.h"

namespace qianli::app {

// Two models with the settings of the runs that made them, or two runs.
struct Comparison {
  double tolerance = 0;
  std::string a, b;                                              // the paths as they were given
  std::optional<std::vector<runs::SettingDifference>> settings;  // where both have them
  std::optional<runs::MetricsComparison> metrics;                // of runs
  std::optional<convert::ModelComparison> models;  // of runs: their last common checkpoint

  // Settings explain a difference and are none.
  bool equal() const {
    return (!metrics || metrics->equal()) && (!models || models->equal(tolerance));
  }
};

// At most `limit` lines of each table.
void print_comparison(const Comparison& found, size_t limit);
OrderedJson comparison_json(const Comparison& found, size_t limit);

// The tensors beyond the tolerance, those that differ most first; equal ones in forward order.
std::vector<const convert::TensorDifference*> worst_tensors(const Comparison& found);

}  // namespace qianli::app
