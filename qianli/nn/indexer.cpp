#include "qianli/nn/indexer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "qianli/nn/kv_cache.h"
#include "qianli/ops/rotary.h"

namespace qianli::nn {
namespace {

constexpr double kKeyNormEps = 1e-6;

}  // namespace

Indexer::Indexer(const model::ModelSpec& spec, ParameterSet& parameters, const std::string& prefix)
    : spec_(spec),
      sizes_(*spec.indexer),
      query_(find_linear(parameters, prefix + "linear_wq_b")),
      key_(find_linear(parameters, prefix + "linear_wk")),
      weights_(find_linear(parameters, prefix + "linear_weights_proj")),
      key_norm_{{.weight = parameters.find(prefix + "k_norm.weight"),
                 .bias = parameters.find(prefix + "k_norm.bias"),
                 .kind = model::NormKind::kLayerNorm,
                 .eps = kKeyNormEps}} {}

Indexer::Projected Indexer::project(const at::Tensor& x, const at::Tensor& query_latent,
                                    ForwardPass& pass) const {
  const at::AutoGradMode recorded(learns(pass));
  const int64_t tokens = pass.tokens(), heads = sizes_.num_heads, dim = sizes_.head_dim;
  const ops::RotaryTable& table = pass.rotary.at(spec_.rope, pass.input);
  const ops::RotaryPairs style{.interleaved = sizes_.interleaved};
  const auto rotated = [&](const at::Tensor& heads_of) {
    return ops::rotary(heads_of, table, pass.input.positions, style);
  };
  const at::Tensor seen = x.detach();
  const double scale = 1.0 / std::sqrt(static_cast<double>(heads * dim));
  return {.query = rotated(query_(query_latent.detach()).view({tokens, heads, dim})),
          .key = rotated(key_norm_(key_(seen)).view({tokens, 1, dim})).squeeze(1),
          .weights = weights_(seen) * scale};
}

at::Tensor Indexer::choose(const Projected& projected, ForwardPass& pass, int64_t layer) const {
  const at::NoGradGuard no_grad;
  KeyScores scores{projected.query, projected.key, projected.weights};
  KeyOrder order{.q_starts = pass.input.segment_starts, .k_starts = pass.input.segment_starts};
  KvCache* cache = pass.input.cache;
  if (cache) {
    const auto& starts = order.q_starts;
    cache->store_index_keys(layer, projected.key, starts);
    std::vector<at::Tensor> keys;
    for (size_t s = 0; s + 1 < starts.size(); ++s) {
      const int64_t added = starts[s + 1] - starts[s];
      order.before.push_back(cache->length(s));
      order.k_starts[s + 1] = order.k_starts[s] + cache->length(s) + added;
      keys.push_back(cache->index_keys(layer, s, added));
    }
    scores.key = keys.size() == 1 ? keys[0] : at::cat(keys);
  }
  return best_keys(scores, order, sizes_.top_k);
}

at::Tensor best_keys(const KeyScores& scores, const KeyOrder& order, int64_t count) {
  const at::NoGradGuard no_grad;
  const at::Tensor &q = scores.query, &weights = scores.weights;
  const int64_t tokens = q.size(0), heads = q.size(1);
  const auto &q_starts = order.q_starts, &k_starts = order.k_starts;
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < k_starts.size(); ++s)
    longest = std::max(longest, k_starts[s + 1] - k_starts[s]);
  const int64_t width = std::min(count, longest);
  at::Tensor chosen =
      at::full({tokens, width}, -1, q.options().dtype(at::kLong).requires_grad(false));
  for (size_t s = 0; s + 1 < q_starts.size(); ++s) {
    const int64_t keys = k_starts[s + 1] - k_starts[s];
    if (keys == 0) continue;
    const at::Tensor segment_keys = scores.key.narrow(0, k_starts[s], keys);
    const int64_t rows_at_once = std::max<int64_t>(1, kScoresAtOnce / (keys * heads));
    for (int64_t row = q_starts[s]; row < q_starts[s + 1]; row += rows_at_once) {
      const int64_t rows = std::min(rows_at_once, q_starts[s + 1] - row);
      const at::Tensor each =
          at::relu(at::matmul(q.narrow(0, row, rows), segment_keys.t()));  // [R, n, K]
      at::Tensor sums =
          at::bmm(weights.narrow(0, row, rows).unsqueeze(1), each).squeeze(1);  // [R, K]
      const int64_t tokens_seen = order.tokens_before(s) + row - q_starts[s] + 1;
      const at::Tensor last =  // the last key that a row sees
          at::arange(tokens_seen, tokens_seen + rows, chosen.options())
              .div(order.tokens_per_key, "floor")
              .unsqueeze(1) -
          1;
      const at::Tensor hidden = at::arange(keys, chosen.options()).unsqueeze(0) > last;
      sums.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
      const int64_t most = std::min(width, keys);
      const at::Tensor best = std::get<1>(at::topk(sums, most, 1));
      chosen.narrow(0, row, rows).narrow(1, 0, most).copy_(best.masked_fill(best > last, -1));
    }
  }
  return chosen;
}

}  // namespace qianli::nn
