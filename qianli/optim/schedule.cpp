#include "qianli/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace qianli::optim {
namespace {

double cosine(double ratio) { return (1.0 + std::cos(std::numbers::pi * ratio)) / 2.0; }

// The decaying part of warm-up/stable/decay: 1 until the last `decay` updates.
double wsd_coefficient(const config::OptimConfig& config, double n, double end) {
  const double decay = static_cast<double>(config.wsd_decay_steps.value_or(0));
  const double start = end - decay;
  if (n <= start || decay == 0) return 1.0;
  const double ratio = (n - start) / decay;
  if (config.wsd_decay_style == "linear") return 1.0 - ratio;
  if (config.wsd_decay_style == "cosine") return cosine(ratio);
  return 2.0 * std::pow(0.5, ratio) - 1.0;
}

}  // namespace

double learning_rate(const config::OptimConfig& config, int64_t updates_done) {
  const double n = static_cast<double>(updates_done);
  const double warmup = static_cast<double>(config.warmup_steps);
  const double end = static_cast<double>(config.decay_steps.value_or(0));
  if (warmup > 0 && n <= warmup) return config.lr * n / warmup;
  if (config.lr_schedule == "constant") return config.lr;
  if (n > end) return config.min_lr;
  if (config.lr_schedule == "inverse_sqrt") {
    return std::max(config.min_lr,
                    config.lr * std::sqrt(std::max(warmup, 1.0)) / std::sqrt(std::max(n, 1.0)));
  }
  const double ratio = (n - warmup) / std::max(end - warmup, 1.0);
  const double coefficient = config.lr_schedule == "linear"   ? 1.0 - ratio
                             : config.lr_schedule == "cosine" ? cosine(ratio)
                                                              : wsd_coefficient(config, n, end);
  return config.min_lr + coefficient * (config.lr - config.min_lr);
}

}  // namespace qianli::optim
