// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): keys and values come from one
// low-rank latent per token, which is all that a cache has to hold.
#pragma once

#include <memory>

#include "qianli/nn/block.h"
#include "qianli/nn/indexer.h"
#include "qianli/nn/layers.h"
#include "qianli/ops/attention.h"

namespace qianli::nn {

// T tokens, a heads, c the latent's rank (kv_lora_rank), n and r the parts of a query and key head
// without and with positions, w the size of a value head.
class LatentAttention : public Block {
 public:
  // `spec` must outlive the block.
  LatentAttention(const model::ModelSpec& spec, ParameterSet& parameters,
                  const std::string& layer_name, int64_t index);
  BlockOutput forward(const BlockInput& x, ForwardPass& pass) override;
  Indexer* indexer() const { return indexer_.get(); }  // null: it has none

 private:
  struct Latent {
    at::Tensor kv;   // [T, c], normed and scaled
    at::Tensor key;  // [T, 1, r], rotated: one head for all
  };
  at::Tensor rotate(const at::Tensor& x, ForwardPass& pass) const;  // the last r of each head
  // [T, a, n + r]; `latent` gets the normed query latent [T, q_lora_rank], where there is one.
  at::Tensor queries(const at::Tensor& down, ForwardPass& pass, at::Tensor& latent) const;
  Latent latent(const at::Tensor& down, ForwardPass& pass) const;
  // Keys and values of every head are made from the latent: training, and prompts.
  at::Tensor explicit_form(const at::Tensor& q, const Latent& latent,
                           const ops::AttentionLayout& layout, const Indexer::Projected& projected,
                           ForwardPass& pass);
  // The up-projections are applied to queries and outputs instead, so that the cached latents are
  // the keys and values of one head: decoding. No gradients.
  at::Tensor absorbed_form(const at::Tensor& q, const ops::AttentionLayout& layout,
                           ForwardPass& pass) const;
  // With a cache: prompts at the end of the pass that begin their sequences in the explicit form,
  // which is cheaper where a token sees this pass's tokens only; everything else absorbed.
  at::Tensor cached_form(const at::Tensor& q, const Latent& latent,
                         const Indexer::Projected& projected, ForwardPass& pass);

  const model::ModelSpec& spec_;
  const model::LatentAttention& sizes_;
  model::LayerSpec layer_;
  int64_t index_;
  Linear q_, q_down_, q_up_, kv_down_, kv_up_, proj_;
  ops::Parameter* q_norm_;
  ops::Parameter* kv_norm_;
  std::unique_ptr<Indexer> indexer_;
};

}  // namespace qianli::nn
