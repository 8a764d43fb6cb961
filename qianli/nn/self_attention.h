// Multi-head attention with grouped keys and values, and every switch of the families around it.
#pragma once

#include <optional>

#include "qianli/nn/block.h"
#include "qianli/nn/layers.h"
#include "qianli/ops/attention.h"

namespace qianli::nn {

// T tokens, a heads, g key/value heads, d head size.
class SelfAttention : public Block {
 public:
  // `spec` must outlive the block.
  SelfAttention(const model::ModelSpec& spec, ParameterSet& parameters,
                const std::string& layer_name, int64_t index);
  BlockOutput forward(const BlockInput& x, ForwardPass& pass) override;

 private:
  struct Projections {
    at::Tensor q, k, v;    // [T, a, d], [T, g, d] twice
    at::Tensor gate;       // [T, a d], or undefined
    at::Tensor head_gate;  // [T, a], or undefined
  };
  Projections project(const BlockInput& x, ForwardPass& pass) const;
  // A norm over heads or over the whole projection; x: [T, heads, d].
  at::Tensor qk_norm(const at::Tensor& x, ops::Parameter& weight) const;
  ops::AttentionLayout layout(const ForwardPass& pass) const;

  const model::ModelSpec& spec_;
  model::LayerSpec layer_;
  int64_t index_;
  Linear qkv_, head_gate_, proj_;
  ops::Parameter* q_norm_;
  ops::Parameter* k_norm_;
  ops::Parameter* sinks_;
};

// The mask of a layer over the pass's segments.
ops::AttentionLayout attention_layout(const model::ModelSpec& spec, const model::LayerSpec& layer,
                                      const DecoderInput& input);

}  // namespace qianli::nn
