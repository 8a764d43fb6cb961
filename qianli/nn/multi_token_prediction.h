// Heads that predict the tokens behind the next one (DeepSeek-V3, arXiv:2412.19437 section 2.2): an
// extra training signal.
#pragma once

#include <vector>

#include "qianli/nn/decoder_layer.h"

namespace qianli::nn {

class MultiTokenPrediction {
 public:
  // `spec` must outlive the heads.
  MultiTokenPrediction(const model::ModelSpec& spec, ParameterSet& parameters,
                       const Parallel& parallel);

  struct Predicted {
    at::Tensor state;   // [T, h], what the next depth goes on from
    at::Tensor normed;  // [T, h], for the output layer
  };
  // embedding: [T, h] of the token depth + 1 steps ahead; state: [T, h] of the depth before, or of
  // the decoder itself.
  Predicted forward(size_t depth, const at::Tensor& embedding, const at::Tensor& state,
                    ForwardPass& pass);

  std::vector<MixtureOfExperts*> mixtures() const;
  std::vector<Indexer*> indexers() const;

 private:
  struct Depth {
    Norm embedding_norm, hidden_norm, final_norm;
    Linear project;  // [h, 2 h], the embedding's columns first
    DecoderLayer layer;
  };
  std::vector<Depth> depths_;
};

// values[i + shift] at i, within each segment; 0 where that lies behind the segment's end. values:
// [T].
at::Tensor shifted_within_segments(const at::Tensor& values,
                                   const std::vector<int64_t>& segment_starts, int64_t shift);

// Of the token depth + 1 steps ahead of each position.
AheadTokens tokens_ahead(const DecoderInput& input, const at::Tensor& labels, size_t depth);

}  // namespace qianli::nn
