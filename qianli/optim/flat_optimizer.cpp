#include "qianli/optim/flat_optimizer.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/config/name_pattern.h"
#include "qianli/config/tune_section.h"
#include "qianli/ops/adamw.h"

namespace qianli::optim {

namespace {

std::vector<Replicas> by_region(const nn::ParameterSet& parameters, const GradientGroups& groups) {
  std::vector<Replicas> replicas{groups.replicas};
  if (parameters.layout().trained_regions() == 1) return replicas;
  TORCH_CHECK(groups.expert_replicas, "[optim] expected replicas for the experts");
  replicas.push_back(*groups.expert_replicas);
  return replicas;
}

// Regions of what is frozen lie behind the others, in the same order.
std::vector<Replicas> of_all_regions(const nn::ParameterSet& parameters,
                                     const GradientGroups& groups) {
  std::vector<Replicas> replicas = by_region(parameters, groups);
  const size_t trained = replicas.size(), all = parameters.layout().regions().size();
  for (size_t r = trained; r < all; ++r) replicas.push_back(replicas[r - trained]);
  return replicas;
}

}  // namespace

FlatOptimizer::FlatOptimizer(nn::ParameterSet& parameters, const config::OptimConfig& config,
                             GradientGroups groups)
    : parameters_(parameters),
      config_(config),
      gradients_(parameters, by_region(parameters, groups), groups.parts, groups.gradients),
      gathering_(make_gathering(parameters, of_all_regions(parameters, groups), groups.gathering)),
      all_(std::move(groups.all)) {
  const auto options = parameters.options().dtype(parameters.master_dtype());
  exp_avg_ = at::zeros({parameters.owned().count()}, options);
  exp_avg_sq_ = at::zeros({parameters.owned().count()}, options);
  build_ranges();
}

void FlatOptimizer::build_ranges() {
  std::vector<config::NamePattern> patterns;
  for (const auto& group : config_.groups) patterns.emplace_back(group.match);
  std::vector<bool> used(patterns.size(), false);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& entry = parameters_.entry(i);
    if (!parameters_.is_trained(i)) continue;
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
    const config::TuneConfig& tune = parameters_.tune();
    if (tune.learns_locally(entry.layer)) {
      const double ratio = entry.name.ends_with(".lora_B") ? tune.lu_lora_lr_ratio : 1.0;
      range.local = true;
      range.lr_scale = config_.lr > 0 ? ratio * tune.lu_lora_lr / config_.lr : 0.0;
    }
    // Over the gap to the next parameter, whose zeros stay zero.
    const bool next = !ranges_.empty() && range.begin - ranges_.back().end >= 0 &&
                      range.begin - ranges_.back().end < nn::kFlatAlignment;
    if (next && ranges_.back().lr_scale == range.lr_scale &&
        ranges_.back().weight_decay == range.weight_decay && ranges_.back().local == range.local) {
      ranges_.back().end = range.end;
    } else {
      ranges_.push_back(range);
    }
  }
  for (const Range& range : ranges_) {
    if (range.local) local_.push_back({range.begin, range.end});
  }
  std::ranges::sort(local_, {}, &nn::FlatRange::begin);
  for (size_t g = 0; g < used.size(); ++g) {
    const auto matches = [&](const std::string& name) { return patterns[g].matches(name); };
    if (used[g] || std::ranges::any_of(parameters_.elsewhere(), matches)) continue;
    throw ConfigError("optim",
                      fmt::format("expected optim.groups[{}].match to name a parameter, got '{}'",
                                  g, config_.groups[g].match),
                      "names look like decoder.layers.0.mlp.linear_fc1.weight");
  }
}

double FlatOptimizer::gradient_norm(std::span<double> sums) const {
  // On the device, so that it is waited for once.
  at::Tensor squares = at::zeros({}, parameters_.options().dtype(at::kDouble));
  for (const auto& counted : parameters_.counted().parts()) {
    for (const nn::FlatRange& range : by_gradients(counted.begin, counted.begin + counted.count)) {
      for (const auto& part : parameters_.owned().within(range.begin, range.end)) {
        if (gradients_.counts(part)) squares += ops::squared_norm(gradients_.own(part));
      }
    }
  }
  std::vector<double> values(sums.begin(), sums.end());
  values.push_back(squares.item<double>());
  all_.all_reduce(at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, at::kDouble));
  std::copy_n(values.begin(), sums.size(), sums.begin());
  return std::sqrt(values.back());
}

std::vector<nn::FlatRange> FlatOptimizer::by_gradients(int64_t begin, int64_t end) const {
  std::vector<nn::FlatRange> found;
  for (const nn::FlatRange& range : local_) {
    if (range.end <= begin || range.begin >= end) continue;
    if (range.begin > begin) found.push_back({begin, range.begin});
    begin = std::min(range.end, end);
  }
  if (begin < end) found.push_back({begin, end});
  return found;
}

void FlatOptimizer::step_locally(const Range& range, double lr) {
  for (const auto& part : parameters_.owned().within(range.begin, range.end)) {
    const at::Tensor master = parameters_.master(part).sub_(gradients_.own(part), lr);
    if (parameters_.has_separate_master()) parameters_.values(part).copy_(master);
  }
}

void FlatOptimizer::step(double lr, double gradient_norm, int64_t microbatches) {
  gathering_->complete();
  const double limit = config_.clip_grad_norm;
  const double coefficient = limit > 0 ? std::min(1.0, limit / (gradient_norm + 1e-6)) : 1.0;
  ++updates_done_;
  for (const Range& range : ranges_) {
    if (range.local) {
      step_locally(range, lr * range.lr_scale / static_cast<double>(microbatches));
      continue;
    }
    for (const auto& part : parameters_.owned().within(range.begin, range.end)) {
      const auto own = [&](const at::Tensor& compact) {
        return compact.narrow(0, part.place, part.count);
      };
      ops::adamw(parameters_.master(part), gradients_.own(part), own(exp_avg_), own(exp_avg_sq_),
                 parameters_.has_separate_master() ? parameters_.values(part) : at::Tensor(),
                 {.lr = lr * range.lr_scale,
                  .beta1 = config_.betas[0],
                  .beta2 = config_.betas[1],
                  .eps = config_.eps,
                  .weight_decay = range.weight_decay,
                  .step = updates_done_,
                  .grad_scale = coefficient});
    }
  }
  gathering_->updated();
}

OptimizerMemory FlatOptimizer::memory() const {
  return {.parameters = parameters_.kept_bytes(),
          .gradients = gradients_.kept_bytes(),
          .states = static_cast<int64_t>(exp_avg_.nbytes() + exp_avg_sq_.nbytes()),
          .unit_parameters = gathering_->peak_unit_bytes(),
          .unit_gradients = gradients_.peak_unit_bytes()};
}

}  // namespace qianli::optim
