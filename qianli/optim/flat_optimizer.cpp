#include "qianli/optim/flat_optimizer.h"

#include <ATen/ops/zeros.h>
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/config/name_pattern.h"
#include "qianli/ops/adamw.h"

namespace qianli::optim {

FlatOptimizer::FlatOptimizer(nn::ParameterSet& parameters, const config::OptimConfig& config,
                             GradientGroups groups)
    : parameters_(parameters),
      config_(config),
      parts_(parameters, std::move(groups.parts)),
      all_(std::move(groups.all)) {
  const auto options = parameters.flat().options().dtype(parameters.master_dtype());
  gradients_ = at::zeros({parameters.flat_size()}, options);
  exp_avg_ = at::zeros({parameters.owned().count()}, options);
  exp_avg_sq_ = at::zeros({parameters.owned().count()}, options);
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters.entry(i).buffer) parameters.at(i).attach_grad(parameters.view(gradients_, i));
  }
  for (const auto& region : parameters.regions()) {
    const bool experts = !regions_.empty();
    TORCH_CHECK(!experts || groups.expert_replicas, "[optim] expected replicas for the experts");
    regions_.push_back(
        {.of = region, .replicas = experts ? *groups.expert_replicas : groups.replicas});
    regions_.back().own_gradients = gradients_of(regions_.back());
  }
  build_ranges();
}

at::Tensor FlatOptimizer::gradients_of(const Region& region) const {
  return gradients_.narrow(0, region.of.range.begin, region.of.range.count());
}

const FlatOptimizer::Region& FlatOptimizer::region_at(int64_t offset) const {
  return offset < regions_.front().of.range.end ? regions_.front() : regions_.back();
}

at::Tensor FlatOptimizer::own_gradients(const nn::FlatRanges::Part& part) const {
  const Region& region = region_at(part.begin);
  return region.own_gradients.narrow(0, part.place - region.of.place, part.count);
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
    // Over the gap to the next parameter, whose zeros stay zero.
    const bool next = !ranges_.empty() && range.begin - ranges_.back().end >= 0 &&
                      range.begin - ranges_.back().end < nn::kFlatAlignment;
    if (next && ranges_.back().lr_scale == range.lr_scale &&
        ranges_.back().weight_decay == range.weight_decay) {
      ranges_.back().end = range.end;
    } else {
      ranges_.push_back(range);
    }
  }
  for (size_t g = 0; g < used.size(); ++g) {
    const auto matches = [&](const std::string& name) { return patterns[g].matches(name); };
    if (used[g] || std::ranges::any_of(parameters_.elsewhere(), matches)) continue;
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

void FlatOptimizer::complete(size_t index) {
  for (size_t i = index; i < parameters_.size(); ++i) {
    if (!parameters_.entry(i).buffer) parameters_.at(i).grad();
  }
  parts_.sum_from(gradients_, index);
}

void FlatOptimizer::gradients_are_final(int64_t layer) {
  size_t index = 0;
  while (index < parameters_.size() && parameters_.entry(index).layer < layer) ++index;
  complete(index);
  std::vector<int64_t> offsets;  // of each region: its gradients are final from there on
  for (const Region& region : regions_) offsets.push_back(region.of.range.count());
  for (size_t i = index; i < parameters_.size(); ++i) {
    if (parameters_.entry(i).buffer) continue;
    const size_t r = parameters_.region_of(i);
    offsets[r] = std::min(offsets[r], parameters_.place(i).offset - regions_[r].of.range.begin);
  }
  for (size_t r = 0; r < regions_.size(); ++r) {
    regions_[r].replicas.start_reducing(gradients_of(regions_[r]), offsets[r]);
  }
}

void FlatOptimizer::finish_gradients() {
  complete(0);
  parts_.finish(gradients_);
  for (Region& region : regions_) {
    region.own_gradients = region.replicas.finish_reducing(gradients_of(region));
  }
}

double FlatOptimizer::gradient_norm() const {
  // On the device, so that it is waited for once.
  at::Tensor squares = at::zeros({}, gradients_.options().dtype(at::kDouble));
  for (const auto& counted : parameters_.counted().parts()) {
    const int64_t end = counted.begin + counted.count;
    for (const auto& part : parameters_.owned().within(counted.begin, end)) {
      if (!region_at(part.begin).replicas.counts()) continue;
      squares += ops::squared_norm(own_gradients(part));
    }
  }
  all_.all_reduce(squares);
  return std::sqrt(squares.item<double>());
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
      ops::adamw(parameters_.master(part), own_gradients(part), own(exp_avg_), own(exp_avg_sq_),
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
  for (const Region& region : regions_) {
    region.replicas.gather(
        parameters_.flat().narrow(0, region.of.range.begin, region.of.range.count()));
  }
}

}  // namespace qianli::optim
