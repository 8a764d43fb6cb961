// One layer of the decoder: a mixer of positions and a feed-forward block around the residual
// stream.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qianli/nn/block.h"
#include "qianli/nn/carried.h"
#include "qianli/nn/hyper_connection.h"
#include "qianli/nn/indexer.h"
#include "qianli/nn/layers.h"

namespace qianli::nn {

class MixtureOfExperts;

class DecoderLayer {
 public:
  // `spec` must outlive the layer. `index` says which layer of the spec it is like; its parameters
  // are called `name`.*.
  DecoderLayer(const model::ModelSpec& spec, ParameterSet& parameters, const std::string& name,
               int64_t index, const Parallel& parallel);

  void forward(Stream& stream, ForwardPass& pass);

  // None, one, or with a shortcut one beside the dense block.
  std::vector<MixtureOfExperts*> mixtures() const;
  Indexer* indexer() const;  // of its attention; null: none
  int64_t index() const { return index_; }

 private:
  void mix(Stream& stream, ForwardPass& pass);
  void feed_forward(Stream& stream, ForwardPass& pass);
  // A stream of several rows, through the block and around it.
  void around(Stream& stream, ForwardPass& pass, const HyperConnection& connection,
              const Norm& norm, Block& block, const char* site) const;
  // Both blocks read the same stream.
  void parallel(Stream& stream, ForwardPass& pass);
  // What a branch goes through on its way back into the stream.
  at::Tensor finish(const at::Tensor& branch, const Norm& norm, const char* site,
                    const ForwardPass& pass) const;

  const model::ModelSpec& spec_;
  model::LayerSpec layer_;
  std::string name_;
  int64_t index_;
  bool joins_shortcut_;
  HyperConnection mixer_rows_, feed_forward_rows_;
  Norm input_norm_, post_attention_norm_, mlp_norm_, post_mlp_norm_;
  std::unique_ptr<Block> mixer_, feed_forward_, shortcut_;
};

}  // namespace qianli::nn
