// The one decoder: a stack of pre-norm transformer layers, built from a ModelSpec's switches.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "qianli/model/spec.h"
#include "qianli/nn/decoder_input.h"
#include "qianli/nn/kv_cache.h"
#include "qianli/nn/parameter_set.h"
#include "qianli/ops/activation.h"
#include "qianli/ops/attention.h"
#include "qianli/ops/rotary.h"

namespace qianli::nn {

// Shapes in comments: T tokens, H hidden size, N query heads, K key/value heads, D head size, F MLP width.
class Decoder {
 public:
  // Reads the parameters' values at every call; `parameters` must outlive the decoder.
  Decoder(const model::ModelSpec& spec, ParameterSet& parameters);

  // [T] -> [T, H] after the final norm.
  at::Tensor forward(const DecoderInput& input);
  // [T, H] -> [T, V].
  at::Tensor logits(const at::Tensor& hidden);
  // The output layer's weight [V, H]: the embedding itself when they are tied.
  ops::Parameter& output_weight() { return *output_; }

  const model::ModelSpec& spec() const { return spec_; }

  // Called with every named activation of a forward pass; used to find the first non-finite one.
  using Observer = std::function<void(const std::string& name, const at::Tensor& value)>;
  void observe(Observer observer) { observer_ = std::move(observer); }

 private:
  struct Norm {
    ops::Parameter* weight = nullptr;
    ops::Parameter* bias = nullptr;
  };
  struct Linear {
    ops::Parameter* weight = nullptr;
    ops::Parameter* bias = nullptr;
  };
  struct Layer {
    std::string name;
    Norm input_norm, q_norm, k_norm, mlp_norm;
    Linear qkv, proj, fc1, fc2;
  };
  // The residual stream and the branch that is not yet added to it.
  struct Stream {
    at::Tensor residual;
    at::Tensor branch;
  };

  Norm find_norm(ParameterSet& parameters, const std::string& prefix) const;
  Linear find_linear(ParameterSet& parameters, const std::string& prefix) const;

  at::Tensor embed(const DecoderInput& input);
  at::Tensor self_attention(int64_t index, const at::Tensor& x, const DecoderInput& input);
  at::Tensor mlp(const Layer& layer, const at::Tensor& x);
  at::Tensor add_and_norm(Stream& stream, const Norm& norm);
  ops::AttentionLayout layout_for(const DecoderInput& input) const;
  // The rotary table, made longer when the input has positions behind its end.
  const ops::RotaryTable& rotary_for(const DecoderInput& input);
  void report(const std::string& name, const at::Tensor& value) const;

  model::ModelSpec spec_;
  ops::Parameter* word_embeddings_;
  ops::Parameter* position_embeddings_;
  std::vector<Layer> layers_;
  Norm final_norm_;
  ops::Parameter* output_;
  ops::ActivationKind activation_;
  ops::RotaryTable rotary_;
  int64_t rotary_length_ = 0;  // the sequence length that rotary_ was made for, where it matters
  at::Tensor like_;  // dtype and device of the parameters
  Observer observer_;
};

}  // namespace qianli::nn
