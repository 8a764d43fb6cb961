#include "qianli/nn/self_attention.h"

#include <ATen/ops/clamp.h>
#include <ATen/ops/sigmoid.h>

#include "qianli/nn/context_attention.h"
#include "qianli/nn/kv_cache.h"
#include "qianli/nn/tensor_parallel.h"
#include "qianli/ops/rotary.h"

namespace qianli::nn {

SelfAttention::SelfAttention(const model::ModelSpec& spec, ParameterSet& parameters,
                             const std::string& layer_name, int64_t index)
    : spec_(spec),
      layer_(spec.layer(index)),
      index_(index),
      qkv_(find_linear(parameters, layer_name + ".self_attention.linear_qkv")),
      head_gate_(find_linear(parameters, layer_name + ".self_attention.linear_gate")),
      proj_(find_linear(parameters, layer_name + ".self_attention.linear_proj")),
      q_norm_(parameters.find(layer_name + ".self_attention.q_layernorm.weight")),
      k_norm_(parameters.find(layer_name + ".self_attention.k_layernorm.weight")),
      sinks_(parameters.find(layer_name + ".self_attention.core_attention.softmax_offset")) {}

BlockOutput SelfAttention::forward(const BlockInput& x, ForwardPass& pass) {
  Projections p = project(x, pass);
  const bool norm_first = spec_.qk_norm != model::QkNorm::kHeadAfterRotary;
  if (q_norm_ && norm_first) p.q = qk_norm(p.q, *q_norm_), p.k = qk_norm(p.k, *k_norm_);
  if (layer_.rope) {
    const ops::RotaryTable& table = pass.rotary.at(*layer_.rope, pass.input);
    const ops::RotaryPairs pairs{.interleaved = layer_.rope->interleaved};
    p.q = ops::rotary(p.q, table, pass.positions, pairs);
    p.k = ops::rotary(p.k, table, pass.positions, pairs);
  }
  if (q_norm_ && !norm_first) p.q = qk_norm(p.q, *q_norm_), p.k = qk_norm(p.k, *k_norm_);
  at::Tensor context;  // [T, a, d]
  if (KvCache* cache = pass.input.cache) {
    cache->store(index_, p.k, p.v, pass.input.segment_starts);
    context = cache->attend(index_, p.q, layout(pass), sinks_);
  } else {
    context = attend(p.q, p.k, p.v, layout(pass), sinks_, index_, pass);
  }
  if (p.head_gate.defined()) context = context * at::sigmoid(p.head_gate).unsqueeze(-1);
  context = context.reshape({context.size(0), layer_.query_size()});
  if (p.gate.defined()) context = context * at::sigmoid(p.gate);
  return {context, proj_};
}

SelfAttention::Projections SelfAttention::project(const BlockInput& x, ForwardPass& pass) const {
  const int64_t heads = layer_.num_heads, groups = layer_.num_groups, dim = layer_.head_dim;
  const bool gated = spec_.attention_gate == model::AttentionGate::kElement;
  std::vector<Linear> linears{qkv_};
  if (head_gate_) linears.push_back(head_gate_);
  const std::vector<at::Tensor> projected = x.through(std::move(linears));
  at::Tensor all = projected[0];
  const int64_t tokens = all.size(0);
  if (spec_.qkv_clip) all = at::clamp(all, -*spec_.qkv_clip, *spec_.qkv_clip);
  const int64_t query_columns = layer_.query_size() * (gated ? 2 : 1),
                key_columns = layer_.key_value_size();
  Projections p;
  if (head_gate_) p.head_gate = projected[1];
  p.q = all.narrow(1, 0, query_columns).view({tokens, heads, gated ? 2 * dim : dim});
  if (gated) {  // per head its queries, then its gates
    p.gate = p.q.narrow(2, dim, dim).reshape({tokens, layer_.query_size()});
    p.q = p.q.narrow(2, 0, dim);
  }
  if (layer_.shares_key_value) {
    p.k = pass.key;
    p.v = pass.value;
    return p;
  }
  p.k = all.narrow(1, query_columns, key_columns).view({tokens, groups, dim});
  p.v = all.narrow(1, query_columns + key_columns, key_columns).view({tokens, groups, dim});
  if (spec_.key_value_share_factor > 1) {
    pass.key = p.k;
    pass.value = p.v;
  }
  return p;
}

at::Tensor SelfAttention::qk_norm(const at::Tensor& x, ops::Parameter& weight) const {
  if (spec_.qk_norm == model::QkNorm::kLayerNormPerHead)
    return ops::layer_norm(x, weight, nullptr, spec_.norm_eps);
  if (spec_.qk_norm == model::QkNorm::kProjection) {
    return ops::rms_norm(x.reshape({x.size(0), -1}), weight, spec_.norm_eps).view(x.sizes());
  }
  return ops::rms_norm(x, weight, spec_.norm_eps, norm_weight(spec_));
}

ops::AttentionLayout SelfAttention::layout(const ForwardPass& pass) const {
  ops::AttentionLayout layout = attention_layout(spec_, layer_, pass.input);
  layout.softcap = spec_.attention_softcap.value_or(0);
  if (spec_.position == model::PositionKind::kAlibi) {
    const plan::Share share = head_share(pass.parallel);  // all have equally many heads
    layout.slopes = ops::alibi_slopes(layer_.num_heads * share.count)
                        .narrow(0, layer_.num_heads * share.index, layer_.num_heads);
  }
  return layout;
}

ops::AttentionLayout attention_layout(const model::ModelSpec& spec, const model::LayerSpec& layer,
                                      const DecoderInput& input) {
  return {.q_starts = input.segment_starts,
          .k_starts = input.segment_starts,
          .causal = true,
          .window = layer.window,
          .scale = spec.attention_scale()};
}

}  // namespace qianli::nn
