#include "qianli/nn/dropout.h"

#include <fmt/core.h>

#include "qianli/base/random.h"
#include "qianli/nn/tensor_parallel.h"
#include "qianli/ops/dropout.h"
#include "qianli/ops/noise.h"

namespace qianli::nn {
namespace {

at::Tensor drop(const at::Tensor& x, double rate, const std::string& site,
                const ForwardPass& pass) {
  const Dropouts& dropouts = *pass.input.dropout;
  const ops::Dropout dropout = ops::dropout_of(rate, random_key(dropouts.key, site));
  const at::Tensor origins = on_stream(dropouts.origins, pass.parallel);
  if (!pass.parallel.two_dimensional()) return ops::dropout(x, dropout, origins);
  if (dropout.threshold == 0) return x;
  // The kernels count columns from 0.
  const bool wide = x.scalar_type() == at::kDouble;
  const at::Tensor factors = ops::reference::dropout_factors(
      dropout, origins, pass.first_column, x.size(1), 0, 1, wide ? at::kDouble : at::kFloat);
  return (x * factors.squeeze(0)).to(x.scalar_type());
}

}  // namespace

at::Tensor drop_embedding(const at::Tensor& x, const std::string& site, const ForwardPass& pass) {
  return pass.input.dropout ? drop(x, pass.input.dropout->embedding, site, pass) : x;
}

at::Tensor drop_hidden(const at::Tensor& x, const std::string& site, const ForwardPass& pass) {
  return pass.input.dropout ? drop(x, pass.input.dropout->hidden, site, pass) : x;
}

at::Tensor noisy_embedding(const at::Tensor& x, const model::ModelSpec& spec,
                           const ForwardPass& pass) {
  if (!pass.input.dropout || pass.input.dropout->noise == 0) return x;
  const Dropouts& given = *pass.input.dropout;
  const at::Tensor lengths = on_stream(given.sample_lengths, pass.parallel).to(at::kDouble);
  const at::Tensor bounds = (lengths * static_cast<double>(spec.hidden_size)).rsqrt() *
                            (given.noise * spec.embedding_multiplier);
  const at::Tensor unit =
      ops::uniform_noise(random_key(given.key, "noise on the embedding"),
                         on_stream(given.origins, pass.parallel), pass.first_column, x.size(1));
  return x + (unit * bounds.unsqueeze(1)).to(x.scalar_type());
}

void drop_attention(ops::AttentionLayout& layout, int64_t layer, int64_t heads,
                    const ForwardPass& pass) {
  if (!pass.input.dropout) return;
  const Dropouts& dropouts = *pass.input.dropout;
  layout.dropout = ops::dropout_of(
      dropouts.attention, random_key(dropouts.key, fmt::format("attention of layer {}", layer)));
  layout.origins = dropouts.segment_origins;
  layout.first_head = heads * head_share(pass.parallel).index;
}

}  // namespace qianli::nn
