#include "qianli/nn/decoder.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>
#include <fmt/core.h>

#include "qianli/nn/dropout.h"
#include "qianli/nn/kv_cache.h"
#include "qianli/nn/tensor_parallel.h"
#include "qianli/ops/embedding.h"

namespace qianli::nn {

namespace {

// What the output layer's weight belongs to.
std::string output_prefix(const model::ModelSpec& spec) {
  return spec.tie_word_embeddings ? "embedding.word_embeddings.weight" : "output_layer.";
}

// `compute` returns what it hands on with a gradient.
template <class Compute>
void with_units(const DecoderInput& input, const Units& units, const Compute& compute) {
  if (!input.units) {
    compute();
    return;
  }
  input.units->before_forward(units);
  input.units->after_forward(units, compute());
}

}  // namespace

plan::ChunkLayers whole_model(const model::ModelSpec& spec) {
  return plan::place_layers({.layers = spec.num_layers, .mtp_layers = spec.mtp.num_layers})[0][0];
}

Decoder::Decoder(const model::ModelSpec& spec, ParameterSet& parameters, Parallel parallel)
    : Decoder(spec, parameters, whole_model(spec), std::move(parallel)) {}

Decoder::Decoder(const model::ModelSpec& spec, ParameterSet& parameters,
                 const plan::ChunkLayers& part, Parallel parallel)
    : spec_(std::make_unique<model::ModelSpec>(plan::spec_of_part(spec, head_share(parallel)))),
      part_(part),
      attached_(&parameters.attached()),
      word_embeddings_(parameters.find("embedding.word_embeddings.weight")),
      position_embeddings_(parameters.find("embedding.position_embeddings.weight")),
      embedding_norm_(find_norm(parameters, "embedding.word_embeddings.norm", spec, parallel)),
      final_rows_(spec, parameters, "decoder.hyper_connection", /*mixes=*/false),
      final_norm_(find_norm(parameters, "decoder.final_layernorm", spec, parallel)),
      rotary_(std::make_unique<RotaryTables>(*spec_, at::empty({0}, parameters.options()))),
      parallel_(std::move(parallel)) {
  for (const auto& [local, l] : part.layers) {
    layers_.emplace_back(*spec_, parameters, fmt::format("decoder.layers.{}", l), l, parallel_);
  }
  if (part.loss) {
    output_.emplace(ops::OutputLayer{.weight = spec.tie_word_embeddings
                                                   ? *word_embeddings_
                                                   : parameters.at("output_layer.weight"),
                                     .bias = parameters.find("output_layer.bias"),
                                     .multiplier = spec.logits_multiplier,
                                     .softcap = spec.final_logit_softcap.value_or(0),
                                     .normalized_rows = spec.normalized_output});
    share_vocabulary(*output_, spec.vocab_size, parallel_);
  }
  if (part.mtp_layers > 0)
    ahead_ = std::make_unique<MultiTokenPrediction>(*spec_, parameters, parallel_);
  const Units final_rows = parameters.units_with("decoder.hyper_connection.");
  units_ = {.embedding = parameters.units_with("embedding."),
            .final_norm = parameters.units_with("decoder.final_layernorm."),
            .output = parameters.units_with(output_prefix(spec)),
            .layers = {},
            .ahead = {}};
  units_.final_norm.insert(units_.final_norm.begin(), final_rows.begin(), final_rows.end());
  for (const auto& layer : part.layers)
    units_.layers.push_back(parameters.units_with(fmt::format("decoder.layers.{}.", layer.global)));
  for (int64_t depth = 0; depth < part.mtp_layers; ++depth)
    units_.ahead.push_back(parameters.units_with(fmt::format("mtp.layers.{}.", depth)));
}

std::vector<Units> Decoder::units() const {
  std::vector<Units> used = units_.layers;
  used.insert(used.end(), units_.ahead.begin(), units_.ahead.end());
  if (part_.embedding || ahead_) used.push_back(units_.embedding);
  if (part_.loss) used.insert(used.end(), {units_.final_norm, units_.output});
  return used;
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

Carried Decoder::advance(const DecoderInput& input, Carried before) {
  ForwardPass pass = begin(input);
  pass.key = std::move(before.key);
  pass.value = std::move(before.value);
  pass.chosen_keys = std::move(before.chosen_keys);
  pass.shortcut = std::move(before.shortcut);
  Stream stream = std::move(before.stream);
  if (part_.embedding) {
    const at::Tensor embedding = noisy_embedding(embed_in(input, input.tokens), *spec_, pass);
    stream = {.residual = {},
              .branch = repeated_rows(drop_embedding(embedding, "embedding", pass), *spec_)};
    pass.report("embedding", stream.branch);
  }
  for (size_t i = 0; i < layers_.size(); ++i) forward_layer(i, stream, pass);
  if (input.cache) input.cache->advance(input.segment_starts);
  Carried after{.stream = std::move(stream),
                .key = std::move(pass.key),
                .value = std::move(pass.value),
                .chosen_keys = std::move(pass.chosen_keys),
                .shortcut = std::move(pass.shortcut)};
  if (!layers_.empty()) drop_unread(after, *spec_, layers_.back().index() + 1);
  return after;
}

void Decoder::forward_layer(size_t layer, Stream& stream, ForwardPass& pass) {
  with_units(pass.input, units_.layers[layer], [&]() -> std::vector<at::Tensor> {
    layers_[layer].forward(stream, pass);
    return {stream.residual, stream.branch, pass.key, pass.value, pass.shortcut};
  });
}

at::Tensor Decoder::embed_in(const DecoderInput& input, const at::Tensor& tokens) {
  at::Tensor x;
  with_units(input, units_.embedding, [&]() -> std::vector<at::Tensor> {
    x = embed(tokens, input.positions);
    return {x};
  });
  return x;
}

at::Tensor Decoder::finish(Stream& stream) {
  if (final_rows_) stream.branch = final_rows_.read(stream.branch).x;
  at::Tensor normed = stream.add_and_norm(final_norm_);
  if (observer_) observer_("decoder.final_layernorm", normed);
  return normed;
}

at::Tensor Decoder::forward(const DecoderInput& input) {
  Carried after = advance(input);
  return finish(after.stream);
}

MultiTokenPrediction::Predicted Decoder::forward_with_state(const DecoderInput& input) {
  Carried after = advance(input);
  MultiTokenPrediction::Predicted hidden;
  hidden.normed = finish(after.stream);
  hidden.state = spec_->mtp.after_final_norm ? hidden.normed : after.stream.residual;
  return hidden;
}

MultiTokenPrediction::Predicted Decoder::look_ahead(size_t depth, const DecoderInput& input,
                                                    const at::Tensor& state) {
  ForwardPass pass = begin(input);
  auto predicted = ahead_->forward(depth, embed(input.tokens, input.positions), state, pass);
  if (input.cache) input.cache->advance(input.segment_starts);
  return predicted;
}

at::Tensor Decoder::logits(const at::Tensor& hidden) {
  const at::Tensor logits = ops::output_logits(scaled(hidden), *output_);
  if (observer_) observer_("output_layer", logits);
  return logits;
}

ops::CrossEntropyResult Decoder::cross_entropy(const at::Tensor& hidden, const at::Tensor& labels,
                                               const at::Tensor& weights,
                                               const at::Tensor& correct) {
  const at::Tensor whole =
      off_stream(scaled(hidden), labels.size(0), spec_->hidden_size, parallel_);
  return ops::linear_cross_entropy(whole, *output_, labels, weights, correct);
}

at::Tensor Decoder::loss(const DecoderInput& input, Carried after, const Targets& targets) {
  at::Tensor normed, total;
  with_units(input, units_.final_norm, [&]() -> std::vector<at::Tensor> {
    normed = finish(after.stream);
    return {normed, after.stream.residual};
  });
  const auto add_loss = [&](const at::Tensor& hidden, const at::Tensor& labels,
                            const at::Tensor& weights, const at::Tensor& correct = {}) {
    // The output layer makes its gradients in the forward pass.
    with_units(input, units_.output, [&]() -> std::vector<at::Tensor> {
      const at::Tensor loss = cross_entropy(hidden, labels, weights, correct).loss;
      total = total.defined() ? total + loss : loss;
      return {};
    });
  };
  add_loss(normed, targets.labels, targets.weights, targets.correct);
  at::Tensor state = spec_->mtp.after_final_norm ? normed : after.stream.residual;
  ForwardPass pass = begin(input);
  for (size_t depth = 0; depth < targets.ahead_weights.size(); ++depth) {
    const AheadTokens next = tokens_ahead(input, targets.labels, depth);
    const at::Tensor embedding = drop_embedding(
        embed_in(input, next.tokens), fmt::format("mtp.layers.{}.embedding", depth), pass);
    MultiTokenPrediction::Predicted predicted;
    with_units(input, units_.ahead[depth], [&]() -> std::vector<at::Tensor> {
      predicted = ahead_->forward(depth, embedding, state, pass);
      return {predicted.normed, predicted.state};
    });
    add_loss(predicted.normed, next.labels, targets.ahead_weights[depth]);
    state = predicted.state;
  }
  return total;
}

ForwardPass Decoder::begin(const DecoderInput& input) {
  ForwardPass pass{
      .input = input, .rotary = *rotary_, .observer = observer_, .parallel = parallel_};
  share_tokens(pass, spec_->hidden_size);
  attached_->begin(input.adapters, pass.tokens());
  return pass;
}

at::Tensor Decoder::embed(const at::Tensor& tokens, const at::Tensor& positions) {
  at::Tensor x = embed_tokens(tokens, *word_embeddings_, spec_->vocab_size, parallel_);
  if (spec_->embedding_multiplier !=
      1.0) {  // in the activations' precision, as published models have it
    x = x * at::scalar_tensor(spec_->embedding_multiplier, x.options());
  }
  if (position_embeddings_) {
    x = x + ops::embedding(on_stream(positions, parallel_), *position_embeddings_);
  }
  return embedding_norm_ ? embedding_norm_(x) : x;
}

at::Tensor Decoder::scaled(const at::Tensor& hidden) const {
  return spec_->hidden_divisor == 1.0 ? hidden : hidden / spec_->hidden_divisor;
}

}  // namespace qianli::nn
