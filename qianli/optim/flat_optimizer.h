// The optimizer over flat buffers: gradients and states lie at the places of the ParameterSet, and
// one kernel updates each range of equal settings. A rank keeps states of what it owns.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "qianli/config/sections.h"
#include "qianli/nn/parameter_set.h"
#include "qianli/optim/data_parallel.h"
#include "qianli/optim/partial_gradients.h"

namespace qianli::optim {

// Who else has a part in the gradients of a rank.
struct GradientGroups {
  DataParallel replicas;
  // Of the experts, where the parameters have a region for them.
  std::optional<DataParallel> expert_replicas;
  PartGroups parts;
  dist::Group all;  // every rank of the job
};

class FlatOptimizer {
 public:
  // Attaches gradient buffers to all parameters. `parameters` must outlive the optimizer and hold
  // an exact master. Throws ConfigError for a parameter group that matches nothing.
  FlatOptimizer(nn::ParameterSet& parameters, const config::OptimConfig& config,
                GradientGroups groups = {});

  // Forgets all gradients; the next contributions overwrite.
  void reset_gradients();
  // Within the last backward: the gradients of decoder layer `layer` and of all that comes behind
  // it in the forward pass are final. Their reduction over the replicas begins.
  void gradients_are_final(int64_t layer);
  // Call after the last backward: parameters that got nothing count as zero, and the gradients of
  // all replicas are summed.
  void finish_gradients();
  // L2 norm of the gradients of the whole model, the same on all ranks. After finish_gradients().
  double gradient_norm() const;
  // One update with the schedule's rate; gradients are scaled so that their norm is at most
  // clip_grad_norm: coefficient max / (norm + 1e-6) where that is below 1 (Megatron's rule).
  void step(double lr, double gradient_norm);

  int64_t updates_done() const { return updates_done_; }
  void set_updates_done(int64_t updates) { updates_done_ = updates; }

  // [flat_size()], of this replica until finish_gradients().
  at::Tensor& gradients() { return gradients_; }
  // [parameters.owned().count()] each.
  at::Tensor& exp_avg() { return exp_avg_; }
  at::Tensor& exp_avg_sq() { return exp_avg_sq_; }

 private:
  // Neighbours in the flat buffer with the same settings.
  struct Range {
    int64_t begin = 0, end = 0;
    double lr_scale = 1.0;
    double weight_decay = 0.0;
  };
  void build_ranges();
  // The gradients of the parameters from `index` on are final: those that got nothing become zero.
  void complete(size_t index);

  // A region of the flat buffers, with those who hold the same.
  struct Region {
    nn::ParameterSet::Region of;
    DataParallel replicas;
    at::Tensor own_gradients;  // summed, of what is owned
  };
  at::Tensor gradients_of(const Region& region) const;
  const Region& region_at(int64_t offset) const;  // of the flat buffer
  // Of what is owned, `part` lying in the flat buffer.
  at::Tensor own_gradients(const nn::FlatRanges::Part& part) const;

  nn::ParameterSet& parameters_;
  config::OptimConfig config_;
  std::vector<Range> ranges_;
  std::vector<Region> regions_;
  PartialGradients parts_;
  dist::Group all_;
  at::Tensor gradients_;
  at::Tensor exp_avg_;
  at::Tensor exp_avg_sq_;
  int64_t updates_done_ = 0;
};

}  // namespace qianli::optim
