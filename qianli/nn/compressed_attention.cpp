#include "qianli/nn/compressed_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "qianli/nn/context_attention.h"
#include "qianli/nn/indexer.h"
#include "qianli/nn/kv_cache.h"
#include "qianli/nn/self_attention.h"
#include "qianli/ops/grouped_linear.h"
#include "qianli/ops/norm.h"
#include "qianli/ops/rotary.h"

namespace qianli::nn {
namespace {

// Numbers of each token, [T, 1] int64.
struct Places {
  at::Tensor position;  // within its segment, or behind what the cache holds
  at::Tensor row;       // of its own key among those of the segment
  at::Tensor keys;      // of tokens, in its segment
};

// key_starts: of the tokens' keys. Those before a segment's own are of its cache.
Places places_of(const DecoderInput& input, const std::vector<int64_t>& key_starts,
                 at::Device device) {
  const auto& starts = input.segment_starts;
  std::vector<int64_t> position, row, keys;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    const int64_t length = starts[s + 1] - starts[s], all = key_starts[s + 1] - key_starts[s];
    const int64_t before = input.cache ? input.cache->length(s) : 0;
    for (int64_t i = 0; i < length; ++i) {
      position.push_back(before + i);
      row.push_back(all - length + i);
      keys.push_back(all);
    }
  }
  const auto column = [&](const std::vector<int64_t>& values) {
    return at::tensor(values, at::kLong).to(device).unsqueeze(1);
  };
  return {column(position), column(row), column(keys)};
}

at::Tensor counting(int64_t count, const at::Tensor& like) {
  return at::arange(count, like.options()).unsqueeze(0);
}

// The compressed keys of a segment that are whole when a query comes: [T, most], -1 behind them.
at::Tensor all_before(const at::Tensor& position, int64_t ratio, int64_t most) {
  const at::Tensor numbers = counting(most, position);
  const at::Tensor whole = (position + 1).div(ratio, "floor");
  return at::where(numbers < whole, numbers, -1);
}

// One of each state's compressors.
std::vector<CompressorState*> each(const std::vector<CompressedState*>& states,
                                   CompressorState CompressedState::*compressor) {
  std::vector<CompressorState*> found;
  for (CompressedState* state : states) found.push_back(&(state->*compressor));
  return found;
}

}  // namespace

CompressedIndexer::CompressedIndexer(const model::ModelSpec& spec, const model::LayerSpec& layer,
                                     ParameterSet& parameters, const std::string& prefix)
    : spec_(spec),
      rope_(layer.rope),
      ratio_(layer.compression),
      query_(find_linear(parameters, prefix + "linear_wq_b")),
      weights_(find_linear(parameters, prefix + "linear_weights_proj")),
      compressor_(spec, layer, parameters, prefix + "compressor.", spec.indexer->head_dim) {}

at::Tensor CompressedIndexer::choose(const at::Tensor& x, const at::Tensor& query_latent,
                                     ForwardPass& pass,
                                     const std::vector<CompressorState*>& states) const {
  const at::NoGradGuard no_grad;
  const int64_t heads = spec_.indexer->num_heads, dim = spec_.indexer->head_dim;
  const CompressedKeys compressed = compressor_(x, pass, states);
  const at::Tensor query =
      ops::rotary(query_(query_latent).view({x.size(0), heads, dim}),
                  pass.rotary.at(*rope_, pass.input), pass.input.positions,
                  {.interleaved = rope_->interleaved, .offset = dim - spec_.rotary_size(*rope_)});
  const auto exact = [](const at::Tensor& numbers) {
    return numbers.scalar_type() == at::kDouble ? numbers : numbers.to(at::kFloat);
  };
  const double scale = 1.0 / std::sqrt(static_cast<double>(heads * dim));
  std::vector<int64_t> before;
  for (size_t s = 0; s < states.size(); ++s) before.push_back(pass.input.cache->length(s));
  return best_keys(
      {.query = exact(query), .key = exact(compressed.keys), .weights = exact(weights_(x)) * scale},
      {.q_starts = pass.input.segment_starts,
       .k_starts = compressed.starts,
       .before = std::move(before),
       .tokens_per_key = ratio_},
      spec_.indexer->top_k);
}

CompressedAttention::CompressedAttention(const model::ModelSpec& spec, ParameterSet& parameters,
                                         const std::string& layer_name, int64_t index)
    : spec_(spec),
      layer_(spec.layer(index)),
      index_(index),
      ones_("", at::ones({spec.head_dim}, parameters.options())) {
  const std::string prefix = layer_name + ".self_attention.";
  q_down_ = find_linear(parameters, prefix + "linear_q_down_proj");
  q_up_ = find_linear(parameters, prefix + "linear_q_up_proj");
  kv_ = find_linear(parameters, prefix + "linear_kv_proj");
  proj_ = find_linear(parameters, prefix + "linear_proj");
  q_norm_ = &parameters.at(prefix + "q_layernorm.weight");
  kv_norm_ = &parameters.at(prefix + "kv_layernorm.weight");
  sinks_ = &parameters.at(prefix + "core_attention.softmax_offset");
  out_down_ = &parameters.at(prefix + "linear_o_down_proj.weight");
  if (layer_.is_compressed()) {
    compressor_ = std::make_unique<KeyCompressor>(spec, layer_, parameters, prefix + "compressor.",
                                                  spec.head_dim);
  }
  if (layer_.owns_indexer) {
    indexer_ = std::make_unique<CompressedIndexer>(spec, layer_, parameters, prefix + "indexer.");
  }
}

at::Tensor CompressedAttention::rotate(const at::Tensor& x, const ops::RotaryTable& table,
                                       ForwardPass& pass) const {
  return ops::rotary(x, table, pass.input.positions,
                     {.interleaved = layer_.rope->interleaved,
                      .offset = x.size(2) - spec_.rotary_size(*layer_.rope)});
}

BlockOutput CompressedAttention::forward(const BlockInput& x, ForwardPass& pass) {
  const at::Tensor& whole = x.whole();
  const int64_t tokens = pass.tokens(), heads = spec_.num_attention_heads, dim = spec_.head_dim;
  const ops::RotaryTable table = pass.rotary.at(*layer_.rope, pass.input);
  std::vector<CompressedState*> states;
  if (pass.input.cache) states = pass.input.cache->compressed(index_, pass.input.segment_starts);

  const at::Tensor latent = ops::rms_norm(q_down_(whole), *q_norm_, spec_.norm_eps);
  const at::Tensor plain = q_up_(latent).view({tokens, heads, dim});
  const at::Tensor q = rotate(ops::rms_norm(plain, ones_, spec_.norm_eps), table, pass);
  const at::Tensor kv = ops::rms_norm(kv_(whole), *kv_norm_, spec_.norm_eps);
  Seen seen = window(rotate(kv.unsqueeze(1), table, pass).squeeze(1), pass, states);
  if (compressor_) {
    at::Tensor picks;
    if (indexer_) {
      picks = indexer_->choose(whole, latent, pass, each(states, &CompressedState::index_keys));
    }
    add_compressed(seen, (*compressor_)(whole, pass, each(states, &CompressedState::keys)), picks,
                   pass);
  }
  const at::Tensor mixed = attend(q, seen.keys, seen.keys, seen.layout, sinks_, index_, pass);
  // Values were turned as keys: turned back where the query stands, they depend on distances alone.
  const at::Tensor context = rotate(mixed, {table.cos, table.sin.neg()}, pass);
  return {outputs(context), proj_};
}

CompressedAttention::Seen CompressedAttention::window(
    const at::Tensor& own, ForwardPass& pass, const std::vector<CompressedState*>& states) const {
  Seen seen{.keys = own.unsqueeze(1), .layout = attention_layout(spec_, layer_, pass.input)};
  if (states.empty()) return seen;
  const auto& starts = pass.input.segment_starts;
  std::vector<at::Tensor> parts;
  for (size_t s = 0; s < states.size(); ++s) {
    at::Tensor& recent = states[s]->recent;
    parts.push_back(at::cat({recent, own.narrow(0, starts[s], starts[s + 1] - starts[s])}));
    const int64_t rows = parts.back().size(0), later = std::min(rows, layer_.window - 1);
    recent = parts.back().narrow(0, rows - later, later).clone();
    seen.layout.k_starts[s + 1] = seen.layout.k_starts[s] + rows;
  }
  seen.keys = (parts.size() == 1 ? parts[0] : at::cat(parts)).unsqueeze(1);
  return seen;
}

void CompressedAttention::add_compressed(Seen& seen, const CompressedKeys& compressed,
                                         const at::Tensor& picks, ForwardPass& pass) const {
  ops::AttentionLayout& layout = seen.layout;
  const std::vector<int64_t> tokens = layout.k_starts;
  const Places places = places_of(pass.input, tokens, seen.keys.device());
  std::vector<at::Tensor> parts;
  int64_t longest = 0, most = 0;
  for (size_t s = 0; s + 1 < tokens.size(); ++s) {
    const int64_t plain = tokens[s + 1] - tokens[s];
    const int64_t whole = compressed.starts[s + 1] - compressed.starts[s];
    parts.push_back(seen.keys.narrow(0, tokens[s], plain));
    parts.push_back(compressed.keys.narrow(0, compressed.starts[s], whole).unsqueeze(1));
    layout.k_starts[s + 1] = layout.k_starts[s] + plain + whole;
    longest = std::max(longest, plain);
    most = std::max(most, whole);
  }
  seen.keys = at::cat(parts);
  const at::Tensor chosen =
      picks.defined() ? picks : all_before(places.position, layer_.compression, most);
  const int64_t window = std::min(layer_.window, longest);
  const at::Tensor near = places.row - (window - 1) + counting(window, places.row);
  layout.chosen = at::cat(
      {at::where(near >= 0, near, -1), at::where(chosen >= 0, chosen + places.keys, -1)}, 1);
  layout.causal = false;
  layout.window = 0;
}

at::Tensor CompressedAttention::outputs(const at::Tensor& context) const {
  const int64_t tokens = context.size(0), groups = spec_.compressed_attention->output_groups;
  const at::Tensor rows =  // those of a group one behind the other
      context.reshape({tokens, groups, -1}).transpose(0, 1).reshape({groups * tokens, -1});
  const std::vector<int64_t> counts(static_cast<size_t>(groups), tokens);
  const at::Tensor low = ops::grouped_linear(rows, counts, *out_down_);
  return low.view({groups, tokens, -1}).transpose(0, 1).reshape({tokens, -1});
}

}  // namespace qianli::nn
