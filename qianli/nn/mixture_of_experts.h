// A feed-forward block of many experts, of which each token uses a few: router, dispatch of rows to
// experts, experts, combination.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qianli/dist/group.h"
#include "qianli/nn/block.h"
#include "qianli/nn/layers.h"
#include "qianli/ops/activation.h"
#include "qianli/ops/balancing_loss.h"
#include "qianli/ops/permute.h"
#include "qianli/ops/router.h"

namespace qianli::nn {

// What the routers of a mixture did in the microbatches since the last reset.
struct RoutingStatistics {
  at::Tensor choices;  // [E] float64: how often each expert was chosen, before any was dropped
  // Sums over the microbatches, without their coefficients; undefined where a loss is off.
  ops::BalancingLosses losses;
  int64_t microbatches = 0;
};

class MixtureOfExperts : public Block {
 public:
  // Its parameters are called `prefix`.router.weight and so on (model/parameter_table.h).
  MixtureOfExperts(const model::ModelSpec& spec, const model::LayerSpec& layer,
                   ParameterSet& parameters, const std::string& prefix);

  // [T, h] -> [T, h]. In training with gradients it counts choices and injects the balancing
  // losses. What it returns is a part of a sum over parallel.tensor.
  at::Tensor forward(const at::Tensor& x, const DecoderInput& input, const Parallel& parallel = {});
  BlockOutput forward(const BlockInput& x, ForwardPass& pass) override;

  const std::string& name() const { return name_; }
  const RoutingStatistics& statistics() const { return statistics_; }
  RoutingStatistics& statistics() { return statistics_; }
  // Moves the selection bias, where the model has one and the router is trained, by
  // `bias_update_rate` towards the experts that `choices` [E] (the sum over a step and over all
  // ranks) shows below the mean.
  void update_selection_bias(const at::Tensor& choices);
  void reset_statistics();

 private:
  ops::Routing route(const at::Tensor& x, const DecoderInput& input, const Parallel& parallel);
  void add_balancing_losses(const at::Tensor& logits, ops::Routing& routing,
                            const DecoderInput& input, const Parallel& parallel);
  int64_t capacity(int64_t tokens) const;
  // Of the tokens that are this rank's to bring to experts.
  at::Tensor routed_experts(const at::Tensor& x, const ops::Routing& routing,
                            int64_t rows_per_expert, const Parallel& parallel) const;
  at::Tensor experts_of_all_tokens(const at::Tensor& x, const ops::Routing& routing,
                                   const Parallel& parallel) const;
  at::Tensor combine(const at::Tensor& rows, const ops::Routing& routing,
                     const ops::RowPlan& plan) const;
  // rows: [R, h], sorted by expert, of those that this rank holds; tokens: [R] the rows of the pass
  // that they are, where all are here.
  at::Tensor experts(const at::Tensor& rows, const std::vector<int64_t>& counts,
                     const at::Tensor& tokens, const Parallel& parallel) const;
  at::Tensor activate(const at::Tensor& wide, double limit) const;
  at::Tensor shared_experts(const at::Tensor& x, const Parallel& parallel) const;

  model::MixtureOfExperts moe_;
  std::string name_;
  bool gated_;
  ops::ActivationKind activation_;
  double limit_, shared_limit_;
  bool limit_first_;
  Linear router_, fc1_, fc2_;  // of all experts: weights [E, out, in]
  Linear shared_fc1_, shared_fc2_;
  ops::Parameter* shared_gate_;
  ops::Parameter* selection_bias_;
  ops::Parameter* token_experts_;  // [V, k]: the experts of each token; null: the router chooses
  bool bias_moves_;
  RoutingStatistics statistics_;
};

// The step's routing in a few numbers, means over layers and microbatches without coefficients;
// absent where a loss is off.
struct RoutingSummary {
  std::optional<double> aux_loss, sequence_aux_loss, device_aux_loss, communication_aux_loss,
      z_loss;
  double max_load = 0;  // of the most used expert of any layer, relative to the mean: 1 is even
};

struct StepRouting {
  struct Layer {
    std::string name;  // decoder.layers.3.mlp
    RoutingSummary summary;
  };
  RoutingSummary all;
  std::vector<Layer> layers;
};

// Before the end of a step: the statistics become those of all replicas.
void sum_statistics(const std::vector<MixtureOfExperts*>& mixtures, const dist::Group& replicas);
// Ends an optimizer step: moves the selection biases, sums up, and forgets.
StepRouting finish_routing_step(const std::vector<MixtureOfExperts*>& mixtures);

}  // namespace qianli::nn
