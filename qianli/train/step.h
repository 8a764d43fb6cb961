// One optimizer step: microbatches forward and backward, then clip and update.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "qianli/data/batch.h"
#include "qianli/dist/group.h"
#include "qianli/nn/decoder.h"
#include "qianli/nn/mixture_of_experts.h"
#include "qianli/optim/flat_optimizer.h"

namespace qianli::train {

struct StepResult {
  double loss = 0;           // mean over the step's counted tokens
  double gradient_norm = 0;  // before clipping
  double lr = 0;
  int64_t tokens = 0;                      // positions computed, counted in the loss or not
  std::optional<nn::StepRouting> routing;  // of a model with mixtures of experts
  std::optional<double> indexer_loss;      // mean over layers and microbatches
  bool stop = false;                       // a rank was asked to stop
};

// Tokens of a step whose loss mask is set: as the next token's label, and as labels depth + 2
// tokens ahead of a position in the same segment.
struct CountedTokens {
  double next = 0;
  std::vector<double> ahead;
};
CountedTokens count_tokens(std::span<const data::Batch> microbatches, int64_t depths);

class Step {
 public:
  // The references must outlive the step. `replicas` take the other samples of a step;
  // with `overlap` their gradients are summed while the backward pass still goes on.
  Step(nn::Decoder& decoder, nn::ParameterSet& parameters, optim::FlatOptimizer& optimizer,
       const config::OptimConfig& config, dist::Group replicas = {}, bool overlap = true);

  // Takes this replica's microbatches; all have equally many. The loss is the mean over all tokens
  // of the step whose mask is set, however they fall on microbatches and replicas. Throws
  // NonFiniteError, naming the samples and the first bad tensor; the parameters are then as before
  // the step.
  StepResult run(std::span<const data::Batch> microbatches);

  // Sum of losses and number of counted tokens of this replica's batch, without gradients.
  struct Evaluation {
    double loss_sum = 0;
    double tokens = 0;
  };
  Evaluation evaluate(const data::Batch& batch);
  // Each over all replicas.
  std::vector<double> sum(std::vector<double> values) const;

 private:
  // The batch's share of the step's loss, with the predictions of more distant tokens that are
  // counted.
  at::Tensor loss(const data::Batch& batch, const nn::DecoderInput& input,
                  const CountedTokens& counted);
  // Of all replicas.
  CountedTokens sum_of(CountedTokens counted) const;
  void sum_results(StepResult& result) const;
  [[noreturn]] void fail_non_finite(std::span<const data::Batch> microbatches,
                                    const StepResult& result);

  nn::Decoder& decoder_;
  std::vector<nn::MixtureOfExperts*> mixtures_;
  std::vector<nn::Indexer*> indexers_;
  nn::ParameterSet& parameters_;
  optim::FlatOptimizer& optimizer_;
  config::OptimConfig config_;
  dist::Group replicas_;
  bool overlap_;
  at::Device device_;
};

// [segments + 1]: 0 … T; rows of the batch, or its packed documents.
std::vector<int64_t> segment_starts(const data::Batch& batch);
// A batch's tokens, positions and segments on the device of the model.
nn::DecoderInput decoder_input(const data::Batch& batch, at::Device device);

}  // namespace qianli::train
