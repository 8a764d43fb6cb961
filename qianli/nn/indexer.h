// Chooses, for every query of a latent attention, the keys that it sees (DeepSeek-V3.2).
#pragma once

#include "qianli/nn/forward_pass.h"
#include "qianli/nn/layers.h"

namespace qianli::nn {

// n small query heads of size d on one key head; score of key s for query t:
//   sum_i w[t, i] relu(q[t, i] . k[s]) / sqrt(n d)
class Indexer {
 public:
  // `prefix` ends in a point; `spec` must outlive the indexer.
  Indexer(const model::ModelSpec& spec, ParameterSet& parameters, const std::string& prefix);

  // The best top_k keys that each query may see, counted from the first of its segment (or of the
  // cache): [T, min(top_k, keys)] int64, -1 where a
  // query sees fewer. x: [T, h]; query_latent: [T, q_lora_rank]. Records no gradient.
  at::Tensor choose(const at::Tensor& x, const at::Tensor& query_latent, ForwardPass& pass,
                    int64_t layer) const;

 private:
  const model::ModelSpec& spec_;
  const model::Indexer& sizes_;
  Linear query_, key_, weights_;
  Norm key_norm_;
};

}  // namespace qianli::nn
