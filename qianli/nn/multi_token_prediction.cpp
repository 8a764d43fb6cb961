#include "qianli/nn/multi_token_prediction.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/core.h>

namespace qianli::nn {

MultiTokenPrediction::MultiTokenPrediction(const model::ModelSpec& spec, ParameterSet& parameters,
                                           const Parallel& parallel) {
  for (int64_t depth = 0; depth < spec.mtp.num_layers; ++depth) {
    const std::string name = fmt::format("mtp.layers.{}", depth);
    depths_.push_back(
        {.embedding_norm = find_norm(parameters, name + ".enorm", spec, parallel),
         .hidden_norm = find_norm(parameters, name + ".hnorm", spec, parallel),
         .final_norm = find_norm(parameters, name + ".final_layernorm", spec, parallel),
         .project = find_linear(parameters, name + ".eh_proj"),
         .layer = DecoderLayer(spec, parameters, name + ".transformer_layer",
                               spec.num_layers + depth, parallel)});
  }
}

MultiTokenPrediction::Predicted MultiTokenPrediction::forward(size_t depth,
                                                              const at::Tensor& embedding,
                                                              const at::Tensor& state,
                                                              ForwardPass& pass) {
  Depth& head = depths_[depth];
  const at::Tensor joined = at::cat({head.embedding_norm(embedding), head.hidden_norm(state)}, 1);
  Stream stream{.residual = {}, .branch = head.project(joined)};
  head.layer.forward(stream, pass);
  Predicted predicted;
  predicted.normed = stream.add_and_norm(head.final_norm);
  predicted.state = stream.residual;
  return predicted;
}

std::vector<MixtureOfExperts*> MultiTokenPrediction::mixtures() const {
  std::vector<MixtureOfExperts*> found;
  for (const Depth& depth : depths_) {
    const auto own = depth.layer.mixtures();
    found.insert(found.end(), own.begin(), own.end());
  }
  return found;
}

std::vector<Indexer*> MultiTokenPrediction::indexers() const {
  std::vector<Indexer*> found;
  for (const Depth& depth : depths_) {
    if (Indexer* own = depth.layer.indexer()) found.push_back(own);
  }
  return found;
}

at::Tensor shifted_within_segments(const at::Tensor& values,
                                   const std::vector<int64_t>& segment_starts, int64_t shift) {
  at::Tensor shifted = at::zeros_like(values);
  for (size_t s = 0; s + 1 < segment_starts.size(); ++s) {
    const int64_t first = segment_starts[s], count = segment_starts[s + 1] - first - shift;
    if (count > 0) shifted.narrow(0, first, count).copy_(values.narrow(0, first + shift, count));
  }
  return shifted;
}

AheadTokens tokens_ahead(const DecoderInput& input, const at::Tensor& labels, size_t depth) {
  if (!input.ahead.empty()) return input.ahead[depth];
  const auto shift = static_cast<int64_t>(depth) + 1;
  return {shifted_within_segments(input.tokens, input.segment_starts, shift),
          shifted_within_segments(labels, input.segment_starts, shift)};
}

}  // namespace qianli::nn
