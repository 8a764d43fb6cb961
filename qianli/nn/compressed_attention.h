// Attention of DeepSeek-V4: one wide key, which is its own value, for all heads; a window of the
// tokens' keys and, by the kind of the layer, keys of many tokens each.
#pragma once

#include <memory>

#include "qianli/nn/block.h"
#include "qianli/nn/key_compressor.h"
#include "qianli/nn/layers.h"
#include "qianli/ops/attention.h"

namespace qianli::nn {

// Chooses the compressed keys that each query sees: n small query heads of size d on keys of its
// own compressor; score of key s for query t:
//   I[t, s] = sum_i w[t, i] relu(q[t, i] . k[s]) / sqrt(n d)
// No gradient reaches it.
class CompressedIndexer {
 public:
  // `prefix` ends in a point; `spec` must outlive it.
  CompressedIndexer(const model::ModelSpec& spec, const model::LayerSpec& layer,
                    ParameterSet& parameters, const std::string& prefix);
  // x: [T, h]; query_latent: [T, q_lora_rank]. [T, picks] int64, counted from the first compressed
  // key of a segment, -1 where a query sees fewer.
  at::Tensor choose(const at::Tensor& x, const at::Tensor& query_latent, ForwardPass& pass,
                    const std::vector<CompressorState*>& states) const;

 private:
  const model::ModelSpec& spec_;
  const model::Rope* rope_;
  int64_t ratio_;
  Linear query_, weights_;
  KeyCompressor compressor_;
};

// T tokens, a heads of size d.
class CompressedAttention : public Block {
 public:
  // `spec` must outlive the block.
  CompressedAttention(const model::ModelSpec& spec, ParameterSet& parameters,
                      const std::string& layer_name, int64_t index);
  BlockOutput forward(const BlockInput& x, ForwardPass& pass) override;

 private:
  // Keys of a call, and which of them each query sees.
  struct Seen {
    at::Tensor keys;  // [K, 1, d]: of each segment those of its tokens, then the compressed ones
    ops::AttentionLayout layout;
  };
  at::Tensor rotate(const at::Tensor& x, const ops::RotaryTable& table, ForwardPass& pass) const;
  // own: [T, d] of the tokens.
  Seen window(const at::Tensor& own, ForwardPass& pass,
              const std::vector<CompressedState*>& states) const;
  void add_compressed(Seen& seen, const CompressedKeys& compressed, const at::Tensor& picks,
                      ForwardPass& pass) const;
  // context: [T, a, d]. [T, output_groups output_lora_rank].
  at::Tensor outputs(const at::Tensor& context) const;

  const model::ModelSpec& spec_;
  model::LayerSpec layer_;
  int64_t index_;
  Linear q_down_, q_up_, kv_, proj_;
  ops::Parameter *q_norm_, *kv_norm_, *sinks_, *out_down_;
  ops::Parameter ones_;  // of the norm of query heads, which has no weight
  std::unique_ptr<KeyCompressor> compressor_;
  std::unique_ptr<CompressedIndexer> indexer_;
};

}  // namespace qianli::nn
