#include "qianli/nn/decoder_layer.h"

#include "qianli/base/error.h"
#include "qianli/nn/compressed_attention.h"
#include "qianli/nn/dropout.h"
#include "qianli/nn/gated_delta_net.h"
#include "qianli/nn/latent_attention.h"
#include "qianli/nn/mamba2_mixer.h"
#include "qianli/nn/mixture_of_experts.h"
#include "qianli/nn/mlp.h"
#include "qianli/nn/self_attention.h"

namespace qianli::nn {
namespace {

std::unique_ptr<Block> make_mixer(const model::ModelSpec& spec, ParameterSet& parameters,
                                  const std::string& name, int64_t index) {
  switch (spec.layer(index).mixer) {
    case model::MixerKind::kAttention:
    case model::MixerKind::kSlidingAttention:
    case model::MixerKind::kSparseCompressed:
    case model::MixerKind::kHeavyCompressed:
      if (spec.compressed_attention)
        return std::make_unique<CompressedAttention>(spec, parameters, name, index);
      if (spec.latent_attention)
        return std::make_unique<LatentAttention>(spec, parameters, name, index);
      return std::make_unique<SelfAttention>(spec, parameters, name, index);
    case model::MixerKind::kGatedDeltaNet:
      return std::make_unique<GatedDeltaNet>(spec, parameters, name + ".self_attention", index);
    case model::MixerKind::kMamba2:
      return std::make_unique<Mamba2Mixer>(spec, parameters, name + ".mixer", index);
    case model::MixerKind::kNone:
      break;
  }
  return nullptr;
}

std::unique_ptr<Block> make_feed_forward(const model::ModelSpec& spec, ParameterSet& parameters,
                                         const std::string& name, int64_t index) {
  const model::LayerSpec layer = spec.layer(index);
  switch (layer.feed_forward) {
    case model::FeedForwardKind::kDense:
      return std::make_unique<Mlp>(spec, layer, parameters, name + ".mlp");
    case model::FeedForwardKind::kMoe:
      return std::make_unique<MixtureOfExperts>(spec, layer, parameters, name + ".mlp");
    case model::FeedForwardKind::kNone:
      return nullptr;
  }
  return nullptr;
}

bool is_parallel(const model::ModelSpec& spec) {
  return spec.norm_placement == model::NormPlacement::kParallel ||
         spec.norm_placement == model::NormPlacement::kParallelTwo;
}

}  // namespace

DecoderLayer::DecoderLayer(const model::ModelSpec& spec, ParameterSet& parameters,
                           const std::string& name, int64_t index, const Parallel& parallel)
    : spec_(spec),
      layer_(spec.layer(index)),
      name_(name),
      index_(index),
      joins_shortcut_(spec.moe && spec.moe->shortcut && index % 2 == 1),
      mixer_rows_(spec, parameters, name + ".self_attention_hyper_connection", /*mixes=*/true),
      feed_forward_rows_(spec, parameters, name + ".mlp_hyper_connection", /*mixes=*/true),
      input_norm_(find_norm(parameters, name + ".input_layernorm", spec, parallel)),
      post_attention_norm_(
          find_norm(parameters, name + ".post_self_attn_layernorm", spec, parallel)),
      mlp_norm_(find_norm(parameters, name + ".pre_mlp_layernorm", spec, parallel)),
      post_mlp_norm_(find_norm(parameters, name + ".post_mlp_layernorm", spec, parallel)),
      mixer_(make_mixer(spec, parameters, name, index)),
      feed_forward_(make_feed_forward(spec, parameters, name, index)) {
  if (layer_.shortcut_moe) {
    shortcut_ = std::make_unique<MixtureOfExperts>(spec, layer_, parameters, name + ".moe");
  }
}

std::vector<MixtureOfExperts*> DecoderLayer::mixtures() const {
  std::vector<MixtureOfExperts*> found;
  for (Block* block : {feed_forward_.get(), shortcut_.get()}) {
    if (auto* mixture = dynamic_cast<MixtureOfExperts*>(block)) found.push_back(mixture);
  }
  return found;
}

Indexer* DecoderLayer::indexer() const {
  const auto* attention = dynamic_cast<const LatentAttention*>(mixer_.get());
  return attention ? attention->indexer() : nullptr;
}

void DecoderLayer::forward(Stream& stream, ForwardPass& pass) {
  if (is_parallel(spec_)) {
    parallel(stream, pass);
    return;
  }
  if (mixer_rows_ || feed_forward_rows_) {
    if (mixer_) around(stream, pass, mixer_rows_, input_norm_, *mixer_, ".self_attention");
    if (feed_forward_) around(stream, pass, feed_forward_rows_, mlp_norm_, *feed_forward_, ".mlp");
    return;
  }
  if (mixer_) mix(stream, pass);
  if (feed_forward_) feed_forward(stream, pass);
}

void DecoderLayer::around(Stream& stream, ForwardPass& pass, const HyperConnection& connection,
                          const Norm& norm, Block& block, const char* site) const {
  const HyperConnection::Read read = connection.read(stream.branch);
  const BlockInput entering(norm(read.x), pass);
  const at::Tensor y = block.forward(entering, pass).on_stream(pass);
  pass.report(name_ + site, y);
  stream.branch = connection.join(stream.branch, read, drop_hidden(y, name_ + site, pass));
}

void DecoderLayer::mix(Stream& stream, ForwardPass& pass) {
  const at::Tensor x = stream.add_and_norm(input_norm_);
  const BlockInput entering(x, pass);
  const BlockOutput y = mixer_->forward(entering, pass);
  stream.branch = finish(y.on_stream(pass), post_attention_norm_, ".self_attention", pass);
  pass.report(name_ + ".self_attention", stream.branch);
}

void DecoderLayer::feed_forward(Stream& stream, ForwardPass& pass) {
  const at::Tensor x = stream.add_and_norm(mlp_norm_);
  const BlockInput entering(x, pass);
  const auto through = [&](Block& block) { return block.forward(entering, pass).on_stream(pass); };
  if (shortcut_) pass.shortcut = drop_hidden(through(*shortcut_), name_ + ".moe", pass);
  stream.branch = finish(through(*feed_forward_), post_mlp_norm_, ".mlp", pass);
  if (joins_shortcut_) stream.branch = stream.branch + pass.shortcut;
  pass.report(name_ + ".mlp", stream.branch);
}

void DecoderLayer::parallel(Stream& stream, ForwardPass& pass) {
  const at::Tensor x = stream.add_and_norm(input_norm_);
  const BlockInput into_mixer(x, pass);
  if (!mlp_norm_) into_mixer.whole();  // both blocks read it: it comes once
  const BlockInput into_mlp = mlp_norm_ ? BlockInput(mlp_norm_(stream.residual), pass) : into_mixer;
  const at::Tensor attention = mixer_->forward(into_mixer, pass).part(pass.parallel);
  pass.report(name_ + ".self_attention", attention);
  const at::Tensor sum = attention + feed_forward_->forward(into_mlp, pass).part(pass.parallel);
  stream.branch = finish(pass.stream.leave(sum), Norm{}, ".mlp", pass);
  pass.report(name_ + ".mlp", stream.branch);
}

at::Tensor DecoderLayer::finish(const at::Tensor& branch, const Norm& norm, const char* site,
                                const ForwardPass& pass) const {
  const at::Tensor y = drop_hidden(norm ? norm(branch) : branch, name_ + site, pass);
  return spec_.residual_multiplier == 1.0 ? y : y * spec_.residual_multiplier;
}

}  // namespace qianli::nn
