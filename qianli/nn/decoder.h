// The one decoder: a stack of layers around a residual stream, built from a ModelSpec's switches. A
// decoder may be a part of the model, as a chunk of a pipeline stage holds it; the whole model is
// the part that has everything.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "qianli/model/spec.h"
#include "qianli/nn/carried.h"
#include "qianli/nn/decoder_layer.h"
#include "qianli/nn/multi_token_prediction.h"
#include "qianli/ops/cross_entropy.h"
#include "qianli/plan/layers.h"

namespace qianli::nn {

// What a step's loss is made of.
struct Targets {
  at::Tensor labels;   // [T] int64, read only where weights != 0
  at::Tensor weights;  // [T]
  // Of the predictions of more distant tokens: [depth] of [T], scaled already; empty: none is made.
  std::vector<at::Tensor> ahead_weights;
  // Float64 scalar to which the positions are added that count and whose label is the likeliest
  // token; undefined: they are not counted.
  at::Tensor correct;
};

// All layers of the model, the embedding and the output layer.
plan::ChunkLayers whole_model(const model::ModelSpec& spec);

// Shapes in comments: T tokens, h hidden size, V vocabulary.
class Decoder {
 public:
  // Reads the parameters' values at every call; `parameters` must outlive the decoder and hold
  // those of the part.
  Decoder(const model::ModelSpec& spec, ParameterSet& parameters, Parallel parallel = {});
  Decoder(const model::ModelSpec& spec, ParameterSet& parameters, const plan::ChunkLayers& part,
          Parallel parallel = {});

  // The layers of the part. `before` is what the part before left; the part with the embedding
  // takes nothing.
  Carried advance(const DecoderInput& input, Carried before = {});
  // Of the last part: the sum over tokens of weight * cross entropy, as a scalar that carries the
  // gradient and is the end of its graph.
  at::Tensor loss(const DecoderInput& input, Carried after, const Targets& targets);

  // Of the whole model, [T] -> [T, h] after the final norm.
  at::Tensor forward(const DecoderInput& input);
  // The same, with what heads that predict further tokens go on from (multi_token_prediction.h).
  MultiTokenPrediction::Predicted forward_with_state(const DecoderInput& input);
  // The head `depth` of a model that has them, without gradients. input.tokens: those depth + 1
  // steps ahead of the positions; state: [T, h] of the depth before. The cache has rows for the
  // heads.
  MultiTokenPrediction::Predicted look_ahead(size_t depth, const DecoderInput& input,
                                             const at::Tensor& state);
  // [T, h] -> [T, V].
  at::Tensor logits(const at::Tensor& hidden);
  // Cross entropy of the output layer on hidden states of forward(); labels, weights: [T];
  // `correct` as in Targets.
  ops::CrossEntropyResult cross_entropy(const at::Tensor& hidden, const at::Tensor& labels,
                                        const at::Tensor& weights, const at::Tensor& correct = {});
  at::Tensor loss(const DecoderInput& input, const Targets& targets) {
    return loss(input, advance(input), targets);
  }

  // Every mixture of experts of the part, for the end of an optimizer step.
  std::vector<MixtureOfExperts*> mixtures() const;
  // Every indexer, for its loss.
  std::vector<Indexer*> indexers() const;

  const model::ModelSpec& spec() const { return *spec_; }
  const plan::ChunkLayers& part() const { return part_; }
  // Of parameters, that it uses.
  std::vector<Units> units() const;
  void observe(Observer observer) { observer_ = std::move(observer); }

 private:
  // The units that the parts of the decoder use.
  struct PartUnits {
    Units embedding, final_norm, output;
    std::vector<Units> layers, ahead;
  };
  ForwardPass begin(const DecoderInput& input);
  void forward_layer(size_t layer, Stream& stream, ForwardPass& pass);
  at::Tensor embed_in(const DecoderInput& input, const at::Tensor& tokens);
  at::Tensor embed(const at::Tensor& tokens, const at::Tensor& positions);
  at::Tensor finish(Stream& stream);
  // What the output layer is given: [T, h].
  at::Tensor scaled(const at::Tensor& hidden) const;

  std::unique_ptr<const model::ModelSpec> spec_;  // layers keep references to it
  plan::ChunkLayers part_;
  AttachedAdapters* attached_;
  ops::Parameter* word_embeddings_;
  ops::Parameter* position_embeddings_;
  Norm embedding_norm_;
  std::vector<DecoderLayer> layers_;
  HyperConnection final_rows_;
  Norm final_norm_;
  // Its weight is the embedding itself when they are tied.
  std::optional<ops::OutputLayer> output_;
  std::unique_ptr<MultiTokenPrediction> ahead_;
  std::unique_ptr<RotaryTables> rotary_;
  PartUnits units_;
  Parallel parallel_;
  Observer observer_;
};

}  // namespace qianli::nn
