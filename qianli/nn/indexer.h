// Chooses, for every query of a latent attention, the keys that it sees (DeepSeek-V3.2,
// arXiv:2512.02556).
#pragma once

#include <optional>

#include "qianli/nn/forward_pass.h"
#include "qianli/nn/layers.h"
#include "qianli/ops/attention.h"

namespace qianli::nn {

inline constexpr int64_t kScoresAtOnce = int64_t{1} << 24;  // bounds those of a block of queries

// Scores of keys, and which keys come before which queries. Shapes: T queries, n heads of d, K
// keys.
struct KeyScores {
  at::Tensor query;    // [T, n, d]
  at::Tensor key;      // [K, d]
  at::Tensor weights;  // [T, n]; I[t, s] = sum_i weights[t, i] relu(query[t, i] . key[s])
};
struct KeyOrder {
  std::vector<int64_t> q_starts, k_starts;  // [segments + 1]
  // [segments]: tokens in front of the first query's own; empty: none.
  std::vector<int64_t> before = {};
  int64_t tokens_per_key = 1;  // a query sees the keys whose tokens it follows or is

  int64_t tokens_before(size_t segment) const { return before.empty() ? 0 : before[segment]; }
};
// The best `count` keys that each query may see, counted from the first of its segment: [T,
// min(count, keys)] int64, -1 where a query sees fewer. Records nothing.
at::Tensor best_keys(const KeyScores& scores, const KeyOrder& order, int64_t count);

// n small query heads of size d on one key head; score of key s for query t:
//   I[t, s] = sum_i w[t, i] relu(q[t, i] . k[s]) / sqrt(n d)
class Indexer {
 public:
  // `prefix` ends in a point; `spec` must outlive the indexer.
  Indexer(const model::ModelSpec& spec, ParameterSet& parameters, const std::string& prefix);

  struct Projected {
    at::Tensor query;    // [T, n, d], rotated
    at::Tensor key;      // [T, d], rotated
    at::Tensor weights;  // [T, n], the root of n d in them
  };
  // x: [T, h]; query_latent: [T, q_lora_rank]. Gradients go to the indexer's own parameters, where
  // it learns, and never further: the choice has none.
  Projected project(const at::Tensor& x, const at::Tensor& query_latent, ForwardPass& pass) const;

  // The best top_k keys that each query may see, counted from the first of its segment (or of the
  // cache): [T, min(top_k, keys)] int64, -1 where a query sees fewer.
  at::Tensor choose(const Projected& projected, ForwardPass& pass, int64_t layer) const;

  // True where this pass trains the indexer: training, gradients recorded, loss_coeff not 0.
  bool learns(const ForwardPass& pass) const;
  // The indexer's own loss: the mean over queries t of
  //   KL(p[t] || softmax of I[t] over the chosen keys),
  // p[t] the attention probabilities over those keys, averaged over the heads. q, k: [T, a, D],
  // what the attention is made of. Returns `context`, in whose backward pass the loss gets its
  // gradient.
  at::Tensor learn(const at::Tensor& context, const Projected& projected, const at::Tensor& q,
                   const at::Tensor& k, const ops::AttentionLayout& layout,
                   const DecoderInput& input);
  // The mean loss of the microbatches since the last call; nothing where there was none.
  std::optional<double> take_loss();

 private:
  const model::ModelSpec& spec_;
  const model::Indexer& sizes_;
  Linear query_, key_, weights_;
  Norm key_norm_;
  at::Tensor loss_sum_;
  int64_t losses_ = 0;
};

// What all indexers learned from since the last call, averaged; nothing where none did.
std::optional<double> take_loss(const std::vector<Indexer*>& indexers);

}  // namespace qianli::nn
