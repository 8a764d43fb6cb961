#include "qianli/nn/latent_attention.h"

#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>

#include "qianli/nn/context_attention.h"
#include "qianli/nn/kv_cache.h"
#include "qianli/nn/self_attention.h"
#include "qianli/ops/norm.h"
#include "qianli/ops/rotary.h"

namespace qianli::nn {

LatentAttention::LatentAttention(const model::ModelSpec& spec, ParameterSet& parameters,
                                 const std::string& layer_name, int64_t index)
    : spec_(spec), sizes_(*spec.latent_attention), layer_(spec.layer(index)), index_(index) {
  const std::string prefix = layer_name + ".self_attention.";
  q_ = find_linear(parameters, prefix + "linear_q_proj");
  q_down_ = find_linear(parameters, prefix + "linear_q_down_proj");
  q_up_ = find_linear(parameters, prefix + "linear_q_up_proj");
  kv_down_ = find_linear(parameters, prefix + "linear_kv_down_proj");
  kv_up_ = find_linear(parameters, prefix + "linear_kv_up_proj");
  proj_ = find_linear(parameters, prefix + "linear_proj");
  q_norm_ = parameters.find(prefix + "q_layernorm.weight");
  kv_norm_ = parameters.find(prefix + "kv_layernorm.weight");
  if (layer_.owns_indexer)
    indexer_ = std::make_unique<Indexer>(spec, parameters, prefix + "indexer.");
}

at::Tensor LatentAttention::rotate(const at::Tensor& x, ForwardPass& pass) const {
  if (!layer_.rope) return x;
  return ops::rotary(
      x, pass.rotary.at(*layer_.rope, pass.input), pass.input.positions,
      {.interleaved = layer_.rope->interleaved, .offset = x.size(2) - sizes_.qk_rope_head_dim});
}

at::Tensor LatentAttention::queries(const at::Tensor& down, ForwardPass& pass,
                                    at::Tensor& latent) const {
  at::Tensor q = down;
  if (!q_) {
    latent = ops::rms_norm(down, *q_norm_, sizes_.norm_eps);
    if (sizes_.q_lora_scale != 1.0) latent = latent * sizes_.q_lora_scale;
    q = q_up_(latent);
  }
  return rotate(q.view({pass.tokens(), spec_.num_attention_heads, spec_.head_dim}), pass);
}

LatentAttention::Latent LatentAttention::latent(const at::Tensor& down, ForwardPass& pass) const {
  Latent latent;
  latent.kv = ops::rms_norm(down.narrow(1, 0, sizes_.kv_lora_rank), *kv_norm_, sizes_.norm_eps);
  if (sizes_.kv_lora_scale != 1.0) latent.kv = latent.kv * sizes_.kv_lora_scale;
  latent.key =
      rotate(down.narrow(1, sizes_.kv_lora_rank, sizes_.qk_rope_head_dim).unsqueeze(1), pass);
  return latent;
}

BlockOutput LatentAttention::forward(const BlockInput& x, ForwardPass& pass) {
  if (indexer_) x.whole();  // it takes more of it than linear layers
  const auto down = x.through({q_ ? q_ : q_down_, kv_down_});
  at::Tensor query_latent;
  const at::Tensor q = queries(down[0], pass, query_latent);
  const Latent own = latent(down[1], pass);
  Indexer::Projected projected;
  if (indexer_) {
    projected = indexer_->project(x.whole(), query_latent, pass);
    pass.chosen_keys = indexer_->choose(projected, pass, index_);
  }
  ops::AttentionLayout layout = attention_layout(spec_, layer_, pass.input);
  layout.chosen = pass.chosen_keys;
  const at::Tensor context = pass.input.cache ? cached_form(q, own, projected, pass)
                                              : explicit_form(q, own, layout, projected, pass);
  return {context.reshape({pass.tokens(), spec_.num_attention_heads * sizes_.v_head_dim}), proj_};
}

at::Tensor LatentAttention::cached_form(const at::Tensor& q, const Latent& latent,
                                        const Indexer::Projected& projected, ForwardPass& pass) {
  KvCache& cache = *pass.input.cache;
  const auto& starts = pass.input.segment_starts;
  cache.store_latents(index_, at::cat({latent.kv, latent.key.squeeze(1)}, 1), starts);
  size_t first_new = starts.size() - 1;  // the segments from here on are prompts that begin
  while (first_new > 0 && cache.length(first_new - 1) == 0 &&
         starts[first_new] - starts[first_new - 1] > 1)
    --first_new;
  const auto part = [&](size_t begin, size_t end) {
    ops::AttentionLayout layout = attention_layout(spec_, layer_, pass.input);
    layout.q_starts.clear();
    for (size_t s = begin; s <= end; ++s) layout.q_starts.push_back(starts[s] - starts[begin]);
    layout.k_starts = layout.q_starts;
    if (pass.chosen_keys.defined())
      layout.chosen = pass.chosen_keys.narrow(0, starts[begin], starts[end] - starts[begin]);
    return layout;
  };
  const int64_t row = starts[first_new], rest = pass.tokens() - row;
  const size_t segments = starts.size() - 1;
  std::vector<at::Tensor> parts;
  if (row > 0) parts.push_back(absorbed_form(q.narrow(0, 0, row), part(0, first_new), pass));
  if (rest > 0) {
    const Latent own{.kv = latent.kv.narrow(0, row, rest), .key = latent.key.narrow(0, row, rest)};
    parts.push_back(
        explicit_form(q.narrow(0, row, rest), own, part(first_new, segments), projected, pass));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 0);
}

at::Tensor LatentAttention::explicit_form(const at::Tensor& q, const Latent& latent,
                                          const ops::AttentionLayout& layout,
                                          const Indexer::Projected& projected, ForwardPass& pass) {
  const int64_t heads = spec_.num_attention_heads, plain = sizes_.qk_nope_head_dim;
  const int64_t first_row = pass.tokens() - q.size(0);  // prompts are the last of a pass
  const at::Tensor up =
      kv_up_.of_rows(latent.kv, first_row).view({q.size(0), heads, plain + sizes_.v_head_dim});
  const at::Tensor k = at::cat({up.narrow(2, 0, plain), latent.key.expand({-1, heads, -1})}, 2);
  const at::Tensor v = up.narrow(2, plain, sizes_.v_head_dim);
  const at::Tensor context = attend(q, k, v, layout, nullptr, index_, pass);
  if (!indexer_ || !indexer_->learns(pass)) return context;
  return indexer_->learn(context, projected, q, k, layout, pass.input);
}

at::Tensor LatentAttention::absorbed_form(const at::Tensor& q, const ops::AttentionLayout& layout,
                                          ForwardPass& pass) const {
  const int64_t heads = spec_.num_attention_heads, plain = sizes_.qk_nope_head_dim,
                rank = sizes_.kv_lora_rank;
  const auto weights = kv_up_.merged_weights(q.size(0));
  const auto up_of = [&](const AttachedLinear::RowsWeight& rows) {
    return rows.weight.view({heads, plain + sizes_.v_head_dim, rank});
  };
  std::vector<at::Tensor> absorbed, context;
  for (const auto& rows : weights) {
    const at::Tensor plain_queries =
        q.narrow(0, rows.first, rows.count).narrow(2, 0, plain).transpose(0, 1);  // [a, T, n]
    absorbed.push_back(
        at::bmm(plain_queries, up_of(rows).narrow(1, 0, plain)).transpose(0, 1));  // [T, a, c]
  }
  const at::Tensor query =
      at::cat({at::cat(absorbed, 0), q.narrow(2, plain, sizes_.qk_rope_head_dim)}, 2);
  const at::Tensor mixed =
      pass.input.cache->attend_latents(index_, query, rank, layout);  // [T, a, c]
  for (const auto& rows : weights) {
    const at::Tensor value_up =
        up_of(rows).narrow(1, plain, sizes_.v_head_dim).transpose(1, 2);  // [a, c, w]
    context.push_back(
        at::bmm(mixed.narrow(0, rows.first, rows.count).transpose(0, 1), value_up).transpose(0, 1));
  }
  return at::cat(context, 0);  // [T, a, w]
}

}  // namespace qianli::nn
