#include "qianli/nn/decoder.h"

#include <fmt/core.h>

#include <cmath>

#include "qianli/base/error.h"
#include "qianli/nn/rotary_table.h"
#include "qianli/ops/embedding.h"
#include "qianli/ops/linear.h"
#include "qianli/ops/norm.h"

namespace qianli::nn {
namespace {

ops::ActivationKind activation_kind(model::Activation activation) {
  switch (activation) {
    case model::Activation::kSilu:
      return ops::ActivationKind::kSilu;
    case model::Activation::kGelu:
      return ops::ActivationKind::kGelu;
    case model::Activation::kGeluTanh:
      return ops::ActivationKind::kGeluTanh;
    case model::Activation::kRelu:
      return ops::ActivationKind::kRelu;
    case model::Activation::kRelu2:
    case model::Activation::kClampedSwiglu:
      break;
  }
  throw ConfigError("decoder", "expected silu, gelu, gelu_tanh or relu, got " + to_string(activation));
}

}  // namespace

Decoder::Decoder(const model::ModelSpec& spec, ParameterSet& parameters)
    : spec_(spec),
      word_embeddings_(&parameters.at("embedding.word_embeddings.weight")),
      position_embeddings_(parameters.find("embedding.position_embeddings.weight")),
      final_norm_(find_norm(parameters, "decoder.final_layernorm")),
      output_(spec.tie_word_embeddings ? word_embeddings_ : &parameters.at("output_layer.weight")),
      activation_(activation_kind(spec.activation)) {
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    const std::string name = fmt::format("decoder.layers.{}", l);
    layers_.push_back({.name = name,
                       .input_norm = find_norm(parameters, name + ".input_layernorm"),
                       .q_norm = find_norm(parameters, name + ".self_attention.q_layernorm"),
                       .k_norm = find_norm(parameters, name + ".self_attention.k_layernorm"),
                       .mlp_norm = find_norm(parameters, name + ".pre_mlp_layernorm"),
                       .qkv = find_linear(parameters, name + ".self_attention.linear_qkv"),
                       .proj = find_linear(parameters, name + ".self_attention.linear_proj"),
                       .fc1 = find_linear(parameters, name + ".mlp.linear_fc1"),
                       .fc2 = find_linear(parameters, name + ".mlp.linear_fc2")});
  }
  like_ = parameters.flat();
}

Decoder::Norm Decoder::find_norm(ParameterSet& parameters, const std::string& prefix) const {
  return {parameters.find(prefix + ".weight"), parameters.find(prefix + ".bias")};
}

Decoder::Linear Decoder::find_linear(ParameterSet& parameters, const std::string& prefix) const {
  return {&parameters.at(prefix + ".weight"), parameters.find(prefix + ".bias")};
}

at::Tensor Decoder::forward(const DecoderInput& input) {
  Stream stream{.residual = {}, .branch = embed(input)};
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    stream.branch = self_attention(static_cast<int64_t>(l), add_and_norm(stream, layer.input_norm), input);
    report(layer.name + ".self_attention", stream.branch);
    stream.branch = mlp(layer, add_and_norm(stream, layer.mlp_norm));
    report(layer.name + ".mlp", stream.branch);
  }
  if (input.cache) input.cache->advance(input.tokens.size(0));
  const at::Tensor hidden = add_and_norm(stream, final_norm_);
  report("decoder.final_layernorm", hidden);
  return hidden;
}

at::Tensor Decoder::logits(const at::Tensor& hidden) {
  const at::Tensor logits = ops::linear(hidden, *output_);
  report("output_layer", logits);
  return logits;
}

at::Tensor Decoder::embed(const DecoderInput& input) {
  at::Tensor x = ops::embedding(input.tokens, *word_embeddings_);
  if (position_embeddings_) x = x + ops::embedding(input.positions, *position_embeddings_);
  report("embedding", x);
  return x;
}

at::Tensor Decoder::self_attention(int64_t index, const at::Tensor& x, const DecoderInput& input) {
  const Layer& layer = layers_[index];
  const int64_t tokens = x.size(0), dim = spec_.head_dim;
  const at::Tensor qkv = ops::linear(x, *layer.qkv.weight, layer.qkv.bias);
  const auto parts = qkv.split_with_sizes({spec_.query_size(), spec_.key_value_size(), spec_.key_value_size()}, 1);
  at::Tensor q = parts[0].view({tokens, spec_.num_attention_heads, dim});  // [T, N, D]
  at::Tensor k = parts[1].view({tokens, spec_.num_query_groups, dim});     // [T, K, D]
  at::Tensor v = parts[2].view({tokens, spec_.num_query_groups, dim});
  if (layer.q_norm.weight) {
    q = ops::rms_norm(q, *layer.q_norm.weight, spec_.norm_eps);
    k = ops::rms_norm(k, *layer.k_norm.weight, spec_.norm_eps);
  }
  if (spec_.position == model::PositionKind::kRotary) {
    const ops::RotaryTable& table = rotary_for(input);
    q = ops::rotary(q, table, input.positions);
    k = ops::rotary(k, table, input.positions);
  }
  const ops::AttentionLayout layout = layout_for(input);
  if (input.cache) {
    const auto cached = input.cache->append(index, k, v);
    k = cached.k;
    v = cached.v;
  }
  const at::Tensor context = ops::attention(q, k, v, layout);
  return ops::linear(context.view({tokens, spec_.query_size()}), *layer.proj.weight, layer.proj.bias);
}

at::Tensor Decoder::mlp(const Layer& layer, const at::Tensor& x) {
  const at::Tensor wide = ops::linear(x, *layer.fc1.weight, layer.fc1.bias);  // [T, F] or [T, 2F]
  const at::Tensor active =
      spec_.gated_mlp ? ops::gated_activation(wide, activation_) : ops::activation(wide, activation_);
  return ops::linear(active, *layer.fc2.weight, layer.fc2.bias);
}

at::Tensor Decoder::add_and_norm(Stream& stream, const Norm& norm) {
  if (!stream.residual.defined()) {
    stream.residual = stream.branch;
    return norm.bias ? ops::layer_norm(stream.residual, *norm.weight, *norm.bias, spec_.norm_eps)
                     : ops::rms_norm(stream.residual, *norm.weight, spec_.norm_eps);
  }
  const auto [y, sum] =
      norm.bias ? ops::add_layer_norm(stream.branch, stream.residual, *norm.weight, *norm.bias, spec_.norm_eps)
                : ops::add_rms_norm(stream.branch, stream.residual, *norm.weight, spec_.norm_eps);
  stream.residual = sum;
  return y;
}

ops::AttentionLayout Decoder::layout_for(const DecoderInput& input) const {
  ops::AttentionLayout layout{.q_starts = input.segment_starts,
                              .k_starts = input.segment_starts,
                              .causal = true,
                              .window = spec_.sliding_window.value_or(0),
                              .scale = 1.0 / std::sqrt(static_cast<double>(spec_.head_dim))};
  if (input.cache) layout.k_starts = {0, input.cache->length() + input.tokens.size(0)};
  return layout;
}

const ops::RotaryTable& Decoder::rotary_for(const DecoderInput& input) {
  const int64_t needed = input.max_position + 1;
  // Beyond its trained length a dynamic model turns by the present length, so each length has its table.
  const bool dynamic = spec_.rope.scaling.kind == model::RopeScalingKind::kDynamic;
  const int64_t length = dynamic ? std::max(needed, spec_.max_position_embeddings) : 0;
  if (!rotary_.cos.defined() || rotary_.cos.size(0) < needed || rotary_length_ != length) {
    // Twice what is asked for, so that decoding token by token makes it rarely.
    rotary_ = rotary_table(spec_, like_, std::max<int64_t>(64, 2 * needed), std::max(needed, length));
    rotary_length_ = length;
  }
  return rotary_;
}

void Decoder::report(const std::string& name, const at::Tensor& value) const {
  if (observer_) observer_(name, value);
}

}  // namespace qianli::nn
