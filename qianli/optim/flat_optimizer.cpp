#include "qianli/optim/flat_optimizer.h"

#include <ATen/ops/zeros.h>
#include <fmt/core.h>

#include <cmath>

#include "qianli/base/error.h"
#include "qianli/config/name_pattern.h"
#include "qianli/ops/adamw.h"

namespace qianli::optim {

FlatOptimizer::FlatOptimizer(nn::ParameterSet& parameters, const config::OptimConfig& config,
                             DataParallel replicas)
    : parameters_(parameters), config_(config), replicas_(std::move(replicas)) {
  const auto options = parameters.flat().options().dtype(parameters.master_dtype());
  gradients_ = at::zeros({parameters.flat_size()}, options);
  own_gradients_ = gradients_;
  exp_avg_ = at::zeros({parameters.owned().count()}, options);
  exp_avg_sq_ = at::zeros({parameters.owned().count()}, options);
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters.entry(i).buffer) parameters.at(i).attach_grad(parameters.view(gradients_, i));
  }
  build_ranges();
}

void FlatOptimizer::build_ranges() {
  std::vector<config::NamePattern> patterns;
  for (const auto& group : config_.groups) patterns.emplace_back(group.match);
  std::vector<bool> used(patterns.size(), false);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& entry = parameters_.entry(i);
    if (entry.buffer) continue;
    const auto& place = parameters_.place(i);
    Range range{.begin = place.offset,
                .end = place.offset + place.count,
                .weight_decay = entry.weight_decay ? config_.weight_decay : 0.0};
    for (size_t g = 0; g < patterns.size(); ++g) {
      if (!patterns[g].matches(entry.name)) continue;
      used[g] = true;
      range.lr_scale = config_.groups[g].lr_scale;
      if (config_.groups[g].weight_decay) range.weight_decay = *config_.groups[g].weight_decay;
      break;  // the first match wins
    }
    if (!ranges_.empty() && ranges_.back().lr_scale == range.lr_scale &&
        ranges_.back().weight_decay == range.weight_decay) {
      ranges_.back().end = range.end;  // over the gap, whose zeros stay zero
    } else {
      ranges_.push_back(range);
    }
  }
  for (size_t g = 0; g < used.size(); ++g) {
    if (used[g]) continue;
    throw ConfigError("optim",
                      fmt::format("expected optim.groups[{}].match to name a parameter, got '{}'",
                                  g, config_.groups[g].match),
                      "names look like decoder.layers.0.mlp.linear_fc1.weight");
  }
}

void FlatOptimizer::reset_gradients() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!parameters_.entry(i).buffer) parameters_.at(i).reset_grad();
  }
}

void FlatOptimizer::complete(int64_t first_element) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_.entry(i).buffer || parameters_.place(i).offset < first_element) continue;
    parameters_.at(i).grad();
  }
}

void FlatOptimizer::gradients_are_final(int64_t layer) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_.entry(i).buffer || parameters_.entry(i).layer < layer) continue;
    complete(parameters_.place(i).offset);
    replicas_.start_reducing(gradients_, parameters_.place(i).offset);
    return;
  }
}

void FlatOptimizer::finish_gradients() {
  complete(0);
  own_gradients_ = replicas_.finish_reducing(gradients_);
}

double FlatOptimizer::gradient_norm() const {
  return std::sqrt(replicas_.sum_of_parts(ops::squared_norm(own_gradients_).item<double>()));
}

void FlatOptimizer::step(double lr, double gradient_norm) {
  const double limit = config_.clip_grad_norm;
  const double coefficient = limit > 0 ? std::min(1.0, limit / (gradient_norm + 1e-6)) : 1.0;
  ++updates_done_;
  for (const Range& range : ranges_) {
    for (const auto& part : parameters_.owned().within(range.begin, range.end)) {
      const auto own = [&](const at::Tensor& compact) {
        return compact.narrow(0, part.place, part.count);
      };
      ops::adamw(parameters_.master(part), own(own_gradients_), own(exp_avg_), own(exp_avg_sq_),
                 parameters_.has_separate_master()
                     ? parameters_.flat().narrow(0, part.begin, part.count)
                     : at::Tensor(),
                 {.lr = lr * range.lr_scale,
                  .beta1 = config_.betas[0],
                  .beta2 = config_.betas[1],
                  .eps = config_.eps,
                  .weight_decay = range.weight_decay,
                  .step = updates_done_,
                  .grad_scale = coefficient});
    }
  }
  replicas_.gather(parameters_.flat());
}

}  // namespace qianli::optim
