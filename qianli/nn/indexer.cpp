#include "qianli/nn/indexer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
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
  const int64_t tokens = pass.tokens(), heads = sizes_.num_heads;
  const at::Tensor& q = projected.query;
  const at::Tensor& weights = projected.weights;
  const auto& starts = pass.input.segment_starts;
  KvCache* cache = pass.input.cache;
  if (cache) cache->store_index_keys(layer, projected.key, starts);
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < starts.size(); ++s)
    longest = std::max(longest, (cache ? cache->length(s) : 0) + starts[s + 1] - starts[s]);
  const int64_t width = std::min(sizes_.top_k, longest);
  at::Tensor chosen =
      at::full({tokens, width}, -1, q.options().dtype(at::kLong).requires_grad(false));
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    const int64_t first = starts[s], added = starts[s + 1] - first;
    const int64_t before = cache ? cache->length(s) : 0;  // keys in front of the first query's own
    const int64_t keys = before + added;
    const at::Tensor segment_keys =
        cache ? cache->index_keys(layer, s, added) : projected.key.narrow(0, first, added);
    const int64_t rows_at_once = std::max<int64_t>(1, kScoresAtOnce / (keys * heads));
    for (int64_t row = starts[s]; row < starts[s + 1]; row += rows_at_once) {
      const int64_t rows = std::min(rows_at_once, starts[s + 1] - row);
      const at::Tensor each =
          at::relu(at::matmul(q.narrow(0, row, rows), segment_keys.t()));  // [R, n, K]
      at::Tensor scores =
          at::bmm(weights.narrow(0, row, rows).unsqueeze(1), each).squeeze(1);  // [R, K]
      const at::Tensor last =  // the last key that a row sees
          at::arange(row - first + before, row - first + before + rows, chosen.options())
              .unsqueeze(1);
      const at::Tensor hidden = at::arange(keys, chosen.options()).unsqueeze(0) > last;
      scores.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
      const int64_t count = std::min(width, keys);
      const at::Tensor best = std::get<1>(at::topk(scores, count, 1));
      chosen.narrow(0, row, rows).narrow(1, 0, count).copy_(best.masked_fill(best > last, -1));
    }
  }
  return chosen;
}

}  // namespace qianli::nn
