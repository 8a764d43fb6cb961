// Floating-point operations of a model, from its sizes.
#include <algorithm>

#include "qianli/model/spec.h"

namespace qianli::model {
namespace {

// Weights a token is multiplied with, and what it does per position that it sees.
struct Work {
  double weights = 0;
  double per_position = 0;  // FLOPs: q k^T and the weighted sum of v
  double other = 0;         // FLOPs of a recurrence, whatever the length
};

double real(int64_t value) { return static_cast<double>(value); }

Work attention_work(const ModelSpec& spec, const LayerSpec& layer) {
  const double h = real(spec.hidden_size), a = real(layer.num_heads);
  Work work{.per_position = 2 * a * real(spec.head_dim + spec.value_head_dim())};
  if (const auto& mla = spec.latent_attention) {
    const double queries = a * real(spec.head_dim);
    work.weights = mla->q_lora_rank ? real(*mla->q_lora_rank) * (h + queries) : h * queries;
    work.weights += h * real(mla->kv_lora_rank + mla->qk_rope_head_dim);
    work.weights += real(mla->kv_lora_rank) * a * real(mla->qk_nope_head_dim + mla->v_head_dim);
    work.weights += a * real(mla->v_head_dim) * h;
  } else if (const auto& wide = spec.compressed_attention) {
    const double queries = a * real(spec.head_dim), rank = real(wide->output_lora_rank);
    work.weights = real(wide->q_lora_rank) * (h + queries) + h * real(spec.head_dim) +
                   rank * (queries + real(wide->output_groups) * h);
    const double overlap = layer.mixer == MixerKind::kSparseCompressed ? 2 : 1;
    if (layer.is_compressed()) work.weights += 2 * overlap * h * real(spec.head_dim);
  } else {
    const double query = real(layer.query_size());
    const double key_value = layer.shares_key_value ? 0 : 2 * real(layer.key_value_size());
    const double gate = spec.attention_gate == AttentionGate::kElement ? query
                        : spec.attention_gate == AttentionGate::kHead  ? a
                                                                       : 0;
    work.weights = h * (query + key_value + gate) + query * h;
  }
  if (layer.owns_indexer) {
    const Indexer& indexer = *spec.indexer;
    const double keys = real(indexer.num_heads * indexer.head_dim);
    const double latent = spec.compressed_attention
                              ? real(spec.compressed_attention->q_lora_rank)
                              : real(spec.latent_attention->q_lora_rank.value_or(0));
    const double projections = spec.compressed_attention ? 4 : 1;  // keys and gates, overlapping
    work.weights +=
        latent * keys + h * (projections * real(indexer.head_dim) + real(indexer.num_heads));
    work.per_position += 2 * keys;
  }
  return work;
}

Work delta_net_work(const ModelSpec& spec) {
  const GatedDeltaNet& net = *spec.gated_delta_net;
  const double h = real(spec.hidden_size);
  const double keys = real(net.key_size()), values = real(net.value_size());
  return {.weights = h * (2 * keys + 2 * values + 2 * real(net.num_value_heads)) +
                     (2 * keys + values) * real(net.conv_kernel) + values * h,
          // Decay, read, write and query of a state [key_head_dim, value_head_dim] per value head.
          .other = 6 * values * real(net.key_head_dim)};
}

Work mamba2_work(const ModelSpec& spec) {
  const Mamba2& mamba = *spec.mamba2;
  const double h = real(spec.hidden_size), inner = real(mamba.inner_size);
  const double groups = 2 * real(mamba.num_groups * mamba.state_size);
  return {.weights = h * (2 * inner + groups + real(mamba.num_heads())) +
                     (inner + groups) * real(mamba.conv_kernel) + inner * h,
          .other = 4 * inner * real(mamba.state_size)};
}

double dense_weights(const ModelSpec& spec, double width) {
  return (spec.gated_mlp ? 3.0 : 2.0) * real(spec.hidden_size) * width;
}

double moe_weights(const ModelSpec& spec) {
  const MixtureOfExperts& moe = *spec.moe;
  const double all = real(moe.num_experts + moe.num_zero_experts);
  const double chosen = real(moe.top_k) * real(moe.num_experts) / all;  // zero experts are free
  const double gate = moe.shared_gate ? real(spec.hidden_size) : 0;
  return real(spec.hidden_size) * all + gate +
         dense_weights(spec, chosen * real(moe.ffn_hidden_size)) +
         dense_weights(spec, real(moe.shared_ffn_hidden_size));
}

Work layer_work(const ModelSpec& spec, const LayerSpec& layer) {
  Work work;
  if (layer.has_attention()) work = attention_work(spec, layer);
  if (layer.mixer == MixerKind::kGatedDeltaNet) work = delta_net_work(spec);
  if (layer.mixer == MixerKind::kMamba2) work = mamba2_work(spec);
  if (layer.feed_forward == FeedForwardKind::kDense) {
    work.weights += dense_weights(spec, real(spec.ffn_hidden_size));
  }
  if (layer.feed_forward == FeedForwardKind::kMoe || layer.shortcut_moe) {
    work.weights += moe_weights(spec);
  }
  if (const auto& hyper = spec.hyper_connections) {
    const double n = real(hyper->streams);
    work.weights += 2 * (2 + n) * n * n * real(spec.hidden_size);
  }
  return work;
}

// Sum over the layers, and over multi-token prediction's where `with_mtp`. `positions` gives the
// (mean) number of positions that a token of a layer sees.
template <class Positions>
double forward_flops(const ModelSpec& spec, bool with_mtp, const Positions& positions) {
  const double h = real(spec.hidden_size), output = 2 * h * real(spec.vocab_size);
  const int64_t mtp = with_mtp ? spec.mtp.num_layers : 0;
  double total = output * real(1 + mtp) + 4 * h * h * real(mtp);
  for (int64_t l = 0; l < spec.num_layers + mtp; ++l) {
    const LayerSpec layer = spec.layer(l);
    const Work work = layer_work(spec, layer);
    total += 2 * work.weights + work.other + work.per_position * positions(layer);
  }
  return total;
}

int64_t smallest(int64_t limit, int64_t length) {
  return limit > 0 ? std::min(limit, length) : length;
}

// Keys of the tokens that a query sees at most; 0: all.
int64_t most_keys(const ModelSpec& spec, const LayerSpec& layer) {
  return spec.indexer && !spec.compressed_attention ? spec.indexer->top_k : layer.window;
}

int64_t most_compressed(const ModelSpec& spec, const LayerSpec& layer) {
  return layer.owns_indexer ? spec.indexer->top_k : 0;
}

}  // namespace

double training_flops(const ModelSpec& spec, int64_t sequences, int64_t sequence_length) {
  // Mean number of positions a token of a causal sequence sees, in the continuous convention of
  // Megatron-LM: s / 2, or with a limit of w < s: w - w^2 / (2 s).
  const auto mean_of = [](int64_t limit, int64_t keys) {
    if (keys == 0) return 0.0;
    const double seen = real(smallest(limit, keys));
    return seen - seen * seen / (2 * real(keys));
  };
  const auto mean = [&](const LayerSpec& layer) {
    const double plain = mean_of(most_keys(spec, layer), sequence_length);
    if (layer.compression == 0) return plain;
    return plain + mean_of(most_compressed(spec, layer), sequence_length / layer.compression);
  };
  // Backward costs twice the forward pass: gradients of inputs and of weights.
  return 3 * real(sequences) * real(sequence_length) * forward_flops(spec, true, mean);
}

double forward_flops_per_token(const ModelSpec& spec, int64_t context_length) {
  return forward_flops(spec, false, [&](const LayerSpec& layer) {
    int64_t seen = smallest(most_keys(spec, layer), context_length);
    if (layer.compression > 0)
      seen += smallest(most_compressed(spec, layer), context_length / layer.compression);
    return real(seen);
  });
}

}  // namespace qianli::model
