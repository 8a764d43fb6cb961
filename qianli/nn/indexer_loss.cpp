#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/xlogy.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>

#include "qianli/nn/indexer.h"
#include "qianli/ops/balancing_loss.h"

namespace qianli::nn {
namespace {

constexpr double kHidden = -std::numeric_limits<double>::infinity();

// Queries of one segment and the keys that they may see.
struct Chunk {
  at::Tensor query, weights;  // of the indexer: [R, n, d], [R, n]
  at::Tensor key;             // [K, d]
  at::Tensor seen;            // [R, K] bool: the chosen ones
  at::Tensor target;          // [R, K]: p
};

struct Gradients {
  at::Tensor query, key, weights;
};

// chosen: [R, w], -1 in places without a key. [R, keys]
at::Tensor seen_keys(const at::Tensor& chosen, int64_t keys) {
  const at::Tensor places = chosen.masked_fill(chosen.lt(0), keys);
  return at::zeros({chosen.size(0), keys + 1}, chosen.options().dtype(at::kBool))
      .scatter_(1, places, true)
      .narrow(1, 0, keys);
}

// Probabilities of the attention, averaged over its heads. q: [R, a, D]; k: [K, a, D].
at::Tensor attention_probabilities(const at::Tensor& q, const at::Tensor& k, const at::Tensor& seen,
                                   double scale) {
  const at::Tensor scores = at::bmm(q.transpose(0, 1), k.permute({1, 2, 0})) * scale;  // [a, R, K]
  return at::softmax(scores.masked_fill(seen.logical_not(), kHidden), 2).mean(0);
}

// Returns the sum over the queries; adds `share` of its gradients to `gradients`, whose tensors are
// the chunk's rows of the whole.
at::Tensor divergence(const Chunk& chunk, double share, const Gradients& gradients) {
  const at::Tensor each = at::matmul(chunk.query, chunk.key.t());  // [R, n, K]
  const at::Tensor rectified = at::relu(each);
  const at::Tensor score = at::bmm(chunk.weights.unsqueeze(1), rectified).squeeze(1);  // [R, K]
  const at::Tensor log_probability =
      at::log_softmax(score.masked_fill(chunk.seen.logical_not(), kHidden), 1);
  // In I the gradient of the divergence is softmax(I) - p.
  const at::Tensor of_score = (log_probability.exp() - chunk.target) * share;  // [R, K]
  gradients.weights.add_(at::bmm(rectified, of_score.unsqueeze(2)).squeeze(2));
  const at::Tensor of_each = chunk.weights.unsqueeze(2) * of_score.unsqueeze(1) * each.gt(0);
  gradients.query.add_(at::matmul(of_each, chunk.key));
  gradients.key.add_(at::matmul(of_each.flatten(0, 1).t(), chunk.query.flatten(0, 1)));
  const at::Tensor cross = chunk.target * log_probability.masked_fill(chunk.seen.logical_not(), 0);
  return (at::xlogy(chunk.target, chunk.target) - cross).sum();
}

}  // namespace

bool Indexer::learns(const ForwardPass& pass) const {
  return pass.input.training && sizes_.loss_coeff != 0 && at::GradMode::is_enabled();
}

at::Tensor Indexer::learn(const at::Tensor& context, const Projected& projected,
                          const at::Tensor& q, const at::Tensor& k,
                          const ops::AttentionLayout& layout, const DecoderInput& input) {
  const auto plain = [&](const at::Tensor& x) {
    return x.detach().to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  };
  const at::Tensor attention_q = plain(q), attention_k = plain(k);
  const Projected values{plain(projected.query), plain(projected.key), plain(projected.weights)};
  const Gradients whole{at::zeros_like(values.query), at::zeros_like(values.key),
                        at::zeros_like(values.weights)};
  const int64_t tokens = q.size(0), heads = std::max(q.size(1), sizes_.num_heads);
  at::Tensor loss = at::zeros({}, values.key.options());
  const auto& starts = input.segment_starts;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    const int64_t keys = starts[s + 1] - starts[s];
    const int64_t rows_at_once =
        std::max<int64_t>(1, kScoresAtOnce / std::max<int64_t>(1, keys * heads));
    for (int64_t row = starts[s]; row < starts[s + 1]; row += rows_at_once) {
      const int64_t rows = std::min(rows_at_once, starts[s + 1] - row);
      const int64_t seen_from_here = row - starts[s] + rows;  // keys behind the last row are hidden
      const auto of_rows = [&](const at::Tensor& x) { return x.narrow(0, row, rows); };
      const auto of_keys = [&](const at::Tensor& x) {
        return x.narrow(0, starts[s], seen_from_here);
      };
      Chunk chunk{.query = of_rows(values.query),
                  .weights = of_rows(values.weights),
                  .key = of_keys(values.key),
                  .seen = seen_keys(of_rows(layout.chosen), seen_from_here)};
      chunk.target = attention_probabilities(of_rows(attention_q), of_keys(attention_k), chunk.seen,
                                             layout.scale);
      loss += divergence(chunk, 1.0 / static_cast<double>(tokens),
                         {of_rows(whole.query), of_keys(whole.key), of_rows(whole.weights)});
    }
  }
  loss_sum_ = loss_sum_.defined() ? loss_sum_ + loss / tokens : loss / tokens;
  ++losses_;
  // Linear in what was projected, with the gradients found above.
  const auto paired = [](const at::Tensor& x, const at::Tensor& gradient) {
    return (x * gradient.to(x.scalar_type())).sum();
  };
  const at::Tensor carrier = paired(projected.query, whole.query) +
                             paired(projected.key, whole.key) +
                             paired(projected.weights, whole.weights);
  return ops::inject_loss(context, carrier, sizes_.loss_coeff * input.auxiliary_loss_scale);
}

std::optional<double> Indexer::take_loss() {
  if (losses_ == 0) return {};
  const double mean = loss_sum_.item<double>() / static_cast<double>(losses_);
  loss_sum_ = at::Tensor();
  losses_ = 0;
  return mean;
}

std::optional<double> take_loss(const std::vector<Indexer*>& indexers) {
  double sum = 0;
  int64_t count = 0;
  for (Indexer* indexer : indexers) {
    if (const auto loss = indexer->take_loss()) {
      sum += *loss;
      ++count;
    }
  }
  return count == 0 ? std::nullopt : std::optional(sum / static_cast<double>(count));
}

}  // namespace qianli::nn
