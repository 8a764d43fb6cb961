// The one decoder: a stack of layers around a residual stream, built from a ModelSpec's switches.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "qianli/model/spec.h"
#include "qianli/nn/decoder_layer.h"
#include "qianli/nn/multi_token_prediction.h"
#include "qianli/ops/cross_entropy.h"

namespace qianli::nn {

// Shapes in comments: T tokens, h hidden size, V vocabulary.
class Decoder {
 public:
  // Reads the parameters' values at every call; `parameters` must outlive the decoder.
  Decoder(const model::ModelSpec& spec, ParameterSet& parameters, Parallel parallel = {});

  // [T] -> [T, h] after the final norm.
  at::Tensor forward(const DecoderInput& input);
  // [T, h] -> [T, V].
  at::Tensor logits(const at::Tensor& hidden);

  // Cross entropy of the output layer on hidden states of forward(); labels, weights: [T].
  ops::CrossEntropyResult cross_entropy(const at::Tensor& hidden, const at::Tensor& labels,
                                        const at::Tensor& weights);

  // Sum over tokens of weight * cross entropy, as a scalar that carries the gradient and is the end
  // of its graph. labels: [T] int64 (read only where weights != 0); weights: [T]. `ahead_weights`
  // are those of the predictions of more distant tokens: [depth] of [T], scaled already; empty:
  // none is made.
  at::Tensor loss(const DecoderInput& input, const at::Tensor& labels, const at::Tensor& weights,
                  const std::vector<at::Tensor>& ahead_weights = {});

  // Every mixture of experts of the model, for the end of an optimizer step.
  std::vector<MixtureOfExperts*> mixtures() const;
  // Every indexer, for its loss.
  std::vector<Indexer*> indexers() const;

  const model::ModelSpec& spec() const { return *spec_; }
  void observe(Observer observer) { observer_ = std::move(observer); }

 private:
  struct Hidden {
    at::Tensor before_norm, after_norm;
  };
  Hidden run(const DecoderInput& input);
  ForwardPass begin(const DecoderInput& input);
  at::Tensor embed(const at::Tensor& tokens, const at::Tensor& positions);
  // What the output layer is given: [T, h].
  at::Tensor scaled(const at::Tensor& hidden) const;

  std::unique_ptr<const model::ModelSpec> spec_;  // layers keep references to it
  ops::Parameter* word_embeddings_;
  ops::Parameter* position_embeddings_;
  Norm embedding_norm_;
  std::vector<DecoderLayer> layers_;
  Norm final_norm_;
  ops::OutputLayer output_;  // its weight is the embedding itself when they are tied
  std::unique_ptr<MultiTokenPrediction> ahead_;
  std::unique_ptr<RotaryTables> rotary_;
  Parallel parallel_;
  Observer observer_;
};

}  // namespace qianli::nn
