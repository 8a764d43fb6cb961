#include "qianli/nn/decoder.h"

#include <ATen/ops/scalar_tensor.h>
#include <fmt/core.h>

#include "qianli/nn/kv_cache.h"
#include "qianli/ops/embedding.h"

namespace qianli::nn {

namespace {

// Autograd runs the nodes made last first. So when it comes to the one that made a layer's input,
// those of this layer and of all behind it are done.
void call_after_backward(const at::Tensor& layer_input, const DecoderInput& input, size_t layer) {
  if (!layer_input.requires_grad()) return;
  layer_input.register_hook([call = input.after_backward, layer](const at::Tensor&) {
    call(static_cast<int64_t>(layer));
  });
}

}  // namespace

Decoder::Decoder(const model::ModelSpec& spec, ParameterSet& parameters, Parallel parallel)
    : spec_(std::make_unique<model::ModelSpec>(spec)),
      word_embeddings_(&parameters.at("embedding.word_embeddings.weight")),
      position_embeddings_(parameters.find("embedding.position_embeddings.weight")),
      embedding_norm_(find_norm(parameters, "embedding.word_embeddings.norm", spec)),
      final_norm_(find_norm(parameters, "decoder.final_layernorm", spec)),
      output_{.weight = spec.tie_word_embeddings ? *word_embeddings_
                                                 : parameters.at("output_layer.weight"),
              .bias = parameters.find("output_layer.bias"),
              .multiplier = spec.logits_multiplier,
              .softcap = spec.final_logit_softcap.value_or(0),
              .normalized_rows = spec.normalized_output},
      rotary_(std::make_unique<RotaryTables>(*spec_, parameters.flat())),
      parallel_(std::move(parallel)) {
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    layers_.emplace_back(*spec_, parameters, fmt::format("decoder.layers.{}", l), l);
  }
  if (spec.mtp.num_layers > 0) ahead_ = std::make_unique<MultiTokenPrediction>(*spec_, parameters);
}

std::vector<MixtureOfExperts*> Decoder::mixtures() const {
  std::vector<MixtureOfExperts*> found =
      ahead_ ? ahead_->mixtures() : std::vector<MixtureOfExperts*>();
  for (const DecoderLayer& layer : layers_) {
    const auto own = layer.mixtures();
    found.insert(found.end(), own.begin(), own.end());
  }
  return found;
}

std::vector<Indexer*> Decoder::indexers() const {
  std::vector<Indexer*> found = ahead_ ? ahead_->indexers() : std::vector<Indexer*>();
  for (const DecoderLayer& layer : layers_) {
    if (Indexer* own = layer.indexer()) found.push_back(own);
  }
  return found;
}

at::Tensor Decoder::forward(const DecoderInput& input) { return run(input).after_norm; }

Decoder::Hidden Decoder::run(const DecoderInput& input) {
  ForwardPass pass = begin(input);
  Stream stream{.residual = {}, .branch = embed(input.tokens, input.positions)};
  pass.report("embedding", stream.branch);
  for (size_t l = 0; l < layers_.size(); ++l) {
    if (input.after_backward && l > 0) call_after_backward(stream.branch, input, l);
    layers_[l].forward(stream, pass);
  }
  if (input.cache) input.cache->advance(input.tokens.size(0));
  Hidden hidden;
  hidden.after_norm = stream.add_and_norm(final_norm_);
  hidden.before_norm = stream.residual;
  pass.report("decoder.final_layernorm", hidden.after_norm);
  return hidden;
}

at::Tensor Decoder::logits(const at::Tensor& hidden) {
  const at::Tensor logits = ops::output_logits(scaled(hidden), output_);
  if (observer_) observer_("output_layer", logits);
  return logits;
}

ops::CrossEntropyResult Decoder::cross_entropy(const at::Tensor& hidden, const at::Tensor& labels,
                                               const at::Tensor& weights) {
  return ops::linear_cross_entropy(scaled(hidden), output_, labels, weights);
}

at::Tensor Decoder::loss(const DecoderInput& input, const at::Tensor& labels,
                         const at::Tensor& weights, const std::vector<at::Tensor>& ahead_weights) {
  const Hidden hidden = run(input);
  at::Tensor total = cross_entropy(hidden.after_norm, labels, weights).loss;
  at::Tensor state = spec_->mtp.after_final_norm ? hidden.after_norm : hidden.before_norm;
  ForwardPass pass = begin(input);
  for (size_t depth = 0; depth < ahead_weights.size(); ++depth) {
    const auto shift = static_cast<int64_t>(depth) + 1;
    const at::Tensor tokens = shifted_within_segments(input.tokens, input.segment_starts, shift);
    const auto predicted = ahead_->forward(depth, embed(tokens, input.positions), state, pass);
    const at::Tensor further = shifted_within_segments(labels, input.segment_starts, shift);
    total = total + cross_entropy(predicted.normed, further, ahead_weights[depth]).loss;
    state = predicted.state;
  }
  return total;
}

ForwardPass Decoder::begin(const DecoderInput& input) {
  return {.input = input, .rotary = *rotary_, .observer = observer_, .parallel = parallel_};
}

at::Tensor Decoder::embed(const at::Tensor& tokens, const at::Tensor& positions) {
  at::Tensor x = ops::embedding(tokens, *word_embeddings_);
  if (spec_->embedding_multiplier !=
      1.0) {  // in the activations' precision, as published models have it
    x = x * at::scalar_tensor(spec_->embedding_multiplier, x.options());
  }
  if (position_embeddings_) x = x + ops::embedding(positions, *position_embeddings_);
  return embedding_norm_ ? embedding_norm_(x) : x;
}

at::Tensor Decoder::scaled(const at::Tensor& hidden) const {
  return spec_->hidden_divisor == 1.0 ? hidden : hidden / spec_->hidden_divisor;
}

}  // namespace qianli::nn
