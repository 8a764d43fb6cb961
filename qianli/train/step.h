// One optimizer step: microbatches forward and backward as the schedule has it, then clip and
// update.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "qianli/data/batch.h"
#include "qianli/dist/group.h"
#include "qianli/nn/decoder.h"
#include "qianli/nn/mixture_of_experts.h"
#include "qianli/nn/slice_keys.h"
#include "qianli/optim/flat_optimizer.h"
#include "qianli/plan/schedule.h"
#include "qianli/plan/slices.h"
#include "qianli/train/pipeline.h"
#include "qianli/train/unit_pass.h"

namespace qianli::train {

struct StepResult {
  double loss = 0;           // mean over the step's counted tokens, or of microbatches' means
  double gradient_norm = 0;  // before clipping
  double lr = 0;
  int64_t tokens = 0;                      // positions computed, counted in the loss or not
  double labels = 0;                       // counted in the loss
  double correct = 0;                      // of these, where StepOptions::counts_correct
  std::optional<nn::StepRouting> routing;  // of a model with mixtures of experts
  std::optional<double> indexer_loss;      // mean over layers and microbatches
  bool stop = false;                       // a rank was asked to stop
};

// Tokens whose loss mask is set: as the next token's label, and as labels depth + 2 tokens ahead of
// a position in the same segment.
struct CountedTokens {
  double next = 0;
  std::vector<double> ahead;
};
CountedTokens count_tokens(std::span<const data::Batch> microbatches, int64_t depths);

// Who takes part in a step.
struct StepRanks {
  dist::Group replicas;  // hold the same parameters and take other tokens
  dist::Group stages;    // of this rank's pipeline, in order; nothing else uses it
  dist::Group pipeline;  // the same ranks, for sums
  // Other stages that hold some of this one's parameters as well, and itself.
  dist::Group sharers;
  dist::Group everyone;
  // Whether this rank's sums over its samples count: one of the ranks that share each layer.
  bool counts = true;
  int64_t samples = 1;  // ranks, or groups of them, that take samples of their own
};

// Rates of what training drops, NEFTune's alpha of the noise it adds, and the seed of both.
struct DropoutOptions {
  double attention = 0, hidden = 0, embedding = 0;
  double noise = 0;
  uint64_t seed = 0;
};

struct StepOptions {
  config::OptimConfig optim;
  // Its microbatches are those that a step is given. All stages have the same samples.
  plan::ScheduleOptions schedule;
  plan::SliceOptions slicing;  // of sequences, where the schedule has slices
  // Units that the sharers hold, too, in an order that is the same on all of them.
  nn::Units shared;
  DropoutOptions dropout;
  // The loss is the mean over all microbatches of their means (0 where nothing counts), else the
  // mean over all counted tokens of the step.
  bool means_of_microbatches = false;
  bool counts_correct = false;  // tokens that are predicted rightly
};

class Step {
 public:
  // The chunks of this stage in the model's order, one of a stage alone being the whole model. They
  // and the references must outlive the step.
  Step(std::vector<nn::Decoder*> chunks, nn::ParameterSet& parameters,
       optim::FlatOptimizer& optimizer, StepOptions options, StepRanks ranks = {});

  // Takes this replica's microbatches; all have equally many. The loss is the mean over all tokens
  // of the step whose mask is set, however they fall on microbatches and replicas (or as
  // means_of_microbatches has it). Throws
  // NonFiniteError, naming the samples and the first bad tensor; the parameters are then as before
  // the step.
  StepResult run(std::span<const data::Batch> microbatches);

  // This rank's part of the sum of losses, of the number of counted tokens, and of those predicted
  // rightly, without gradients: sum() makes them those of all.
  struct Evaluation {
    double loss_sum = 0;
    double tokens = 0;
    double correct = 0;
  };
  Evaluation evaluate(std::span<const data::Batch> microbatches);
  // Each over all replicas.
  std::vector<double> sum(std::vector<double> values) const;

  // Units whose activations this stage kept at once, at the worst moment of the last run.
  int64_t peak_units() const { return pipeline_.peak_units(); }

 private:
  using Unit = PipelineWork::Unit;
  const plan::Schedule& schedule(size_t microbatches, bool forward_only);
  // Sums over all microbatches of a pass.
  struct Totals {
    at::Tensor loss, correct;  // scalars; correct undefined: not counted
  };
  Totals no_totals() const;
  // A unit's part of the step: what the chunk leaves, or the loss, which is added to the totals.
  Tensors forward(const Unit& unit, const data::Batch& batch, const nn::DecoderInput& input,
                  const CountedTokens& divisor, const Tensors& before, const Totals& totals);
  nn::DecoderInput training_input(const Unit& unit, const data::Batch& batch, size_t microbatches);
  // What a unit is given of its microbatch, and the keys of the slices before it.
  data::Batch slice_of(const data::Batch& batch, int32_t slice);
  std::shared_ptr<nn::SliceKeys> slice_keys(const Unit& unit);
  std::shared_ptr<const nn::Dropouts> dropouts(const data::Batch& batch) const;
  // Through whose units the chunk passes, forward and back.
  std::shared_ptr<UnitPass> unit_pass(const Unit& unit);
  UnitPass& pass_of(const Unit& unit);
  // By what each microbatch's losses are divided; `counted` are the step's.
  std::vector<CountedTokens> divisors(std::span<const data::Batch> microbatches,
                                      const CountedTokens& counted) const;
  // The batch's share of the step's loss, with the predictions of more distant tokens that are
  // counted.
  nn::Targets targets(const data::Batch& batch, const nn::DecoderInput& input,
                      const CountedTokens& divisor) const;
  // Of the chunk's units those whose other chunks are complete, too.
  nn::Units units_with_chunk(int32_t chunk) const;
  void chunk_is_complete(int32_t chunk);
  // Of all replicas.
  CountedTokens sum_of(CountedTokens counted) const;
  // Of all ranks: the loss, the tokens, whether to stop and the gradient norm.
  void sum_results(StepResult& result) const;
  void finish_routing(StepResult& result);
  [[noreturn]] void fail_non_finite(std::span<const data::Batch> microbatches,
                                    const StepResult& result);
  std::string first_bad_activation(std::span<const data::Batch> microbatches);
  // All forward passes without gradients. `before` sees every unit.
  Totals go_forward(std::span<const data::Batch> microbatches,
                    const std::function<void(const Unit&)>& before);

  std::vector<nn::Decoder*> chunks_;
  std::vector<nn::MixtureOfExperts*> mixtures_;
  std::vector<nn::Indexer*> indexers_;
  nn::ParameterSet& parameters_;
  optim::FlatOptimizer& optimizer_;
  StepOptions options_;
  StepRanks ranks_;
  at::Device device_;
  Pipeline pipeline_;
  std::map<std::pair<size_t, bool>, plan::Schedule> schedules_;  // by microbatches, forward only
  std::map<std::pair<int32_t, int32_t>, std::shared_ptr<nn::SliceKeys>>
      slice_keys_;                // by chunk, microbatch
  std::vector<nn::Units> units_;  // that each chunk uses
  std::vector<bool> complete_;    // chunks of the step that goes on whose gradients are there
  // By chunk, microbatch and slice.
  std::map<std::tuple<int32_t, int32_t, int32_t>, std::shared_ptr<UnitPass>> passes_;
};

// A batch's tokens, positions and segments on the device of the model.
nn::DecoderInput decoder_input(const data::Batch& batch, at::Device device);

}  // namespace qianli::train
