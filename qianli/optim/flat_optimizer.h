// The optimizer over flat buffers: gradients and states lie at the places of the ParameterSet, and
// one kernel updates each range of equal settings. A rank keeps states of what it owns.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "qianli/config/sections.h"
#include "qianli/nn/parameter_set.h"
#include "qianli/optim/parameter_gathering.h"
#include "qianli/optim/partial_gradients.h"
#include "qianli/optim/replica_gradients.h"
#include "qianli/optim/replicas.h"

namespace qianli::optim {

// Who else has a part in the parameters of a rank and in their gradients, and how.
struct GradientGroups {
  Replicas replicas;
  // Of the experts, where the parameters have a region for them.
  std::optional<Replicas> expert_replicas;
  PartGroups parts;
  dist::Group all;  // every rank of the job
  GradientOptions gradients;
  GatheringOptions gathering;
};

// What a rank keeps, in bytes.
struct OptimizerMemory {
  int64_t parameters = 0;  // values and a separate master
  int64_t gradients = 0;
  int64_t states = 0;           // of the optimizer
  int64_t unit_parameters = 0;  // gathered at once, at the worst moment
  int64_t unit_gradients = 0;   // of units on their way to those who own them, likewise
};

class FlatOptimizer {
 public:
  // Attaches gradient buffers to all parameters that are trained. `parameters` must outlive the
  // optimizer and hold an exact master. Throws ConfigError for a parameter group that matches
  // nothing.
  FlatOptimizer(nn::ParameterSet& parameters, const config::OptimConfig& config,
                GradientGroups groups = {});

  // Forgets all gradients; the next contributions overwrite.
  void reset_gradients() { gradients_.reset(); }
  // A backward pass has added all of its gradients of the unit.
  void gradients_added(size_t unit) { gradients_.added(unit); }
  // And no other one of this step adds to them.
  void gradients_are_final(const nn::Units& units) { gradients_.are_final(units); }
  // Call after the last backward: parameters that got nothing count as zero, and the gradients of
  // all replicas are summed.
  void finish_gradients() { gradients_.finish(); }
  // After that: adds those of the units on other ranks, which hold them as well.
  void sum_gradients(const dist::Group& group, const nn::Units& units) {
    gradients_.sum_own(group, units);
  }
  // L2 norm of the gradients of the whole model, the same on all ranks, after finish_gradients().
  // The ranks add up `sums` in the same message.
  double gradient_norm(std::span<double> sums = {}) const;
  // One update with the schedule's rate; gradients are scaled so that their norm is at most
  // clip_grad_norm: coefficient max / (norm + 1e-6) where that is below 1 (Megatron's rule). The
  // parameters are whole again where gathering() has been told of their use. Adapters of LU-LoRA
  // take a step of their rate against the mean of what `microbatches` of all replicas have left
  // there; neither the norm nor the clipping knows of them.
  void step(double lr, double gradient_norm, int64_t microbatches = 1);
  // Who uses parameters says so.
  ParameterGathering& gathering() { return *gathering_; }

  int64_t updates_done() const { return updates_done_; }
  void set_updates_done(int64_t updates) { updates_done_ = updates; }

  // After finish_gradients(): of what is owned.
  at::Tensor own_gradients(const nn::FlatRanges::Part& part) const { return gradients_.own(part); }
  // [parameters.owned().count()] each.
  at::Tensor& exp_avg() { return exp_avg_; }
  at::Tensor& exp_avg_sq() { return exp_avg_sq_; }
  OptimizerMemory memory() const;

 private:
  // Neighbours in the flat buffer with the same settings.
  struct Range {
    int64_t begin = 0, end = 0;
    double lr_scale = 1.0;
    double weight_decay = 0.0;
    bool local = false;  // LU-LoRA
  };
  void build_ranges();
  void step_locally(const Range& range, double lr);
  // [begin, end) without what learns locally.
  std::vector<nn::FlatRange> by_gradients(int64_t begin, int64_t end) const;
  nn::ParameterSet& parameters_;
  config::OptimConfig config_;
  std::vector<Range> ranges_;
  std::vector<nn::FlatRange> local_;  // ascending
  ReplicaGradients gradients_;
  std::unique_ptr<ParameterGathering> gathering_;
  dist::Group all_;
  at::Tensor exp_avg_;
  at::Tensor exp_avg_sq_;
  int64_t updates_done_ = 0;
};

}  // namespace qianli::optim
