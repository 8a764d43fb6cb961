// The entries of a layer, and of what mixes positions in it.
#include <cmath>

#include "qianli/model/table_writer.h"

namespace qianli::model {

void TableWriter::decoder_layer(const LayerSpec& layer) {
  const bool sandwich = spec_.norm_placement == NormPlacement::kSandwich;
  if (layer.mixer != MixerKind::kNone) {
    hyper_connection("self_attention_hyper_connection", names_.attention_streams, true);
    const bool own_norm = layer.mixer == MixerKind::kMamba2 && !names_.mamba_norm.empty();
    norm("input_layernorm", own_norm ? names_.mamba_norm : names_.input_norm);
    within_block_ = true;
    if (layer.mixer == MixerKind::kGatedDeltaNet) {
      gated_delta_net();
    } else if (layer.mixer == MixerKind::kMamba2) {
      mamba2();
    } else if (spec_.latent_attention) {
      latent_attention(layer);
    } else if (spec_.compressed_attention) {
      compressed_attention(layer);
    } else {
      attention(layer);
    }
    within_block_ = false;
    if (sandwich) norm("post_self_attn_layernorm", names_.post_attention_norm);
  }
  if (layer.feed_forward == FeedForwardKind::kNone) return;
  hyper_connection("mlp_hyper_connection", names_.mlp_streams, true);
  if (spec_.norm_placement != NormPlacement::kParallel) norm("pre_mlp_layernorm", names_.mlp_norm);
  within_block_ = true;
  layer.feed_forward == FeedForwardKind::kMoe ? mixture("mlp", layer.routes_by_token) : mlp();
  if (layer.shortcut_moe) mixture("moe");
  within_block_ = false;
  if (sandwich) norm("post_mlp_layernorm", names_.post_mlp_norm);
}

std::vector<TableWriter::Part> TableWriter::qkv_parts(const LayerSpec& layer) const {
  const int64_t q = layer.query_size(), kv = layer.key_value_size(), d = layer.head_dim;
  const int64_t queries = spec_.attention_gate == AttentionGate::kElement ? 2 * q : q;
  if (names_.qkv.size() != 1) {
    const auto name = [&](size_t i) { return names_.qkv.empty() ? std::string() : names_.qkv[i]; };
    if (layer.shares_key_value) return {{.foreign = name(0), .rows = queries}};
    return {{.foreign = name(0), .rows = queries},
            {.foreign = name(1), .rows = kv},
            {.foreign = name(2), .rows = kv}};
  }
  if (layer.shares_key_value) return {{.foreign = names_.qkv[0], .rows = queries}};
  const int64_t all = queries + 2 * kv;
  if (names_.qkv_order == QkvOrder::kQueriesKeysValues) {
    return {{.foreign = names_.qkv[0], .rows = all}};
  }
  const int64_t per_group = queries / layer.num_groups, stride = per_group + 2 * d;
  const auto part = [&](int64_t rows, int64_t first, int64_t block) {
    return Part{.foreign = names_.qkv[0],
                .rows = rows,
                .foreign_rows = all,
                .foreign_row = first,
                .block = block,
                .stride = stride};
  };
  return {part(queries, 0, per_group), part(kv, per_group, d), part(kv, per_group + d, d)};
}

void TableWriter::query_key_norms(const LayerSpec& layer) {
  const int64_t a = layer.num_heads, g = layer.num_groups, d = layer.head_dim;
  const Init init = spec_.norm_zero_centered ? Init::kZeros : Init::kOnes;
  std::vector<int64_t> query{d}, key{d};
  Cut query_cut, key_cut;
  if (spec_.qk_norm == QkNorm::kProjection) {
    query = {a * d}, query_cut = {query_heads(layer, d)};
    key = {g * d}, key_cut = {{.pieces = g, .width = d}};
  }
  if (spec_.qk_norm == QkNorm::kLayerNormPerHead) {
    query = {a, d}, query_cut = {query_heads(layer, 1)};
    key = {g, d}, key_cut = {{.pieces = g}};
  }
  norm_of("self_attention.q_layernorm.weight", names_.query_norm, query, init, query_cut);
  // A layer that shares its keys with another normalises them itself.
  norm_of("self_attention.k_layernorm.weight", names_.key_norm, key, init, key_cut);
}

CutSection TableWriter::query_heads(const LayerSpec& layer, int64_t per_head) {
  const int64_t together = layer.num_heads / layer.num_groups;
  return {.pieces = layer.num_groups, .width = together * per_head, .finer = together};
}

void TableWriter::attention(const LayerSpec& layer) {
  const int64_t h = spec_.hidden_size, a = layer.num_heads, d = layer.head_dim;
  const bool gated = spec_.attention_gate == AttentionGate::kElement;
  const CutSection keys{.pieces = layer.num_groups, .width = d};
  Cut qkv{query_heads(layer, gated ? 2 * d : d)};
  if (!layer.shares_key_value) qkv.insert(qkv.end(), {keys, keys});
  linear("self_attention.linear_qkv", qkv_parts(layer), h, spec_.qkv_bias, Init::kNormal,
         Shared::kRows, qkv);
  if (spec_.attention_gate == AttentionGate::kHead) {
    linear("self_attention.linear_gate", {{.foreign = names_.head_gate, .rows = a}}, h, false,
           Init::kNormal, Shared::kRows, {query_heads(layer, 1)});
  }
  if (spec_.qk_norm != QkNorm::kNone) query_key_norms(layer);
  if (spec_.attention_sinks) {
    whole(
        add("self_attention.core_attention.softmax_offset", {a}, {.cut = {query_heads(layer, 1)}}),
        names_.sinks.empty() ? "" : foreign(names_.sinks));
  }
  linear("self_attention.linear_proj", {{.foreign = names_.attention_out, .rows = h}},
         layer.query_size(), spec_.attention_out_bias, Init::kNormalScaledByDepth, Shared::kColumns,
         {query_heads(layer, d)});
}

void TableWriter::latent_attention(const LayerSpec& layer) {
  const LatentAttention& mla = *spec_.latent_attention;
  const ForeignNames::Latent& names = names_.latent;
  const int64_t h = spec_.hidden_size, a = layer.num_heads;
  const std::string prefix = "self_attention.";
  const auto matrix = [&](const char* name, const std::string& foreign_name, int64_t rows,
                          int64_t columns, bool bias, const Cut& cut = {}) {
    linear(prefix + name, {{.foreign = foreign_name, .rows = rows}}, columns, bias, Init::kNormal,
           cut.empty() ? Shared::kNot : Shared::kRows, cut);
  };
  const auto heads = [&](int64_t width) { return Cut{{.pieces = a, .width = width}}; };
  const int64_t key_value = mla.qk_nope_head_dim + mla.v_head_dim;
  if (mla.q_lora_rank) {
    matrix("linear_q_down_proj", names.query_down, *mla.q_lora_rank, h, spec_.qkv_bias);
    norm_of(prefix + "q_layernorm.weight", names.query_norm, {*mla.q_lora_rank}, Init::kOnes);
    matrix("linear_q_up_proj", names.query_up, layer.query_size(), *mla.q_lora_rank, false,
           heads(layer.head_dim));
  } else {
    matrix("linear_q_proj", names.query, layer.query_size(), h, false, heads(layer.head_dim));
  }
  matrix("linear_kv_down_proj", names.key_value_down, mla.kv_lora_rank + mla.qk_rope_head_dim, h,
         spec_.qkv_bias);
  norm_of(prefix + "kv_layernorm.weight", names.key_value_norm, {mla.kv_lora_rank}, Init::kOnes);
  matrix("linear_kv_up_proj", names.key_value_up, a * key_value, mla.kv_lora_rank, false,
         heads(key_value));
  if (layer.owns_indexer) {
    const Indexer& indexer = *spec_.indexer;
    matrix("indexer.linear_wq_b", names_.indexer.query, indexer.num_heads * indexer.head_dim,
           *mla.q_lora_rank, false);
    matrix("indexer.linear_wk", names_.indexer.key, indexer.head_dim, h, false);
    norm_of(prefix + "indexer.k_norm.weight", names_.indexer.key_norm, {indexer.head_dim},
            Init::kOnes);
    norm_of(prefix + "indexer.k_norm.bias", names_.indexer.key_norm, {indexer.head_dim},
            Init::kZeros);
    matrix("indexer.linear_weights_proj", names_.indexer.weights, indexer.num_heads, h, false);
  }
  linear(prefix + "linear_proj", {{.foreign = names_.attention_out, .rows = h}}, a * mla.v_head_dim,
         spec_.attention_out_bias, Init::kNormalScaledByDepth, Shared::kColumns,
         heads(mla.v_head_dim));
}

void TableWriter::convolution(const std::string& name, const std::string& foreign_name,
                              const Cut& cut, int64_t kernel, bool bias) {
  int64_t channels = 0;
  for (const CutSection& section : cut) channels += section.size();
  const Init init = Init::kUniform;
  const double bound = 1.0 / std::sqrt(static_cast<double>(kernel));
  ParameterEntry& weight =
      add(name + ".weight", {channels, kernel}, {.init = init, .cut = cut, .weight_decay = true});
  weight.init_std = bound;
  whole(weight, foreign_name.empty() ? "" : with_suffix(foreign(foreign_name), "weight"));
  for (ForeignPiece& piece : weight.hugging_face) piece.shape = {channels, 1, kernel};
  if (!bias) return;
  ParameterEntry& entry = add(name + ".bias", {channels}, {.init = init, .cut = cut});
  entry.init_std = bound;
  whole(entry, foreign_name.empty() ? "" : with_suffix(foreign(foreign_name), "bias"));
}

void TableWriter::gated_delta_net() {
  const GatedDeltaNet& net = *spec_.gated_delta_net;
  const ForeignNames::DeltaNet& names = names_.delta_net;
  const int64_t h = spec_.hidden_size, k = net.key_size(), v = net.value_size();
  // Ranks share the key heads, each with the value heads that use it.
  const int64_t heads = net.num_key_heads, values = net.num_value_heads / heads;
  const auto per_key_head = [&](int64_t width) {
    return CutSection{.pieces = heads, .width = width};
  };
  const int64_t value_width = values * net.value_head_dim;
  const auto vector = [&](const char* name, const std::string& foreign_name, Init init) {
    whole(add(name, {net.num_value_heads}, {.init = init, .cut = {per_key_head(values)}}),
          foreign_name.empty() ? "" : foreign(foreign_name));
  };
  linear("self_attention.in_proj",
         {{.foreign = names.qkvz, .rows = 2 * k + 2 * v},
          {.foreign = names.ba, .rows = 2 * net.num_value_heads}},
         h, false, Init::kNormal, Shared::kRows,
         {per_key_head(2 * net.key_head_dim + 2 * value_width), per_key_head(2 * values)});
  convolution(
      "self_attention.conv1d", names.conv,
      {per_key_head(net.key_head_dim), per_key_head(net.key_head_dim), per_key_head(value_width)},
      net.conv_kernel, false);
  vector("self_attention.A_log", names.a_log, Init::kDecay);
  vector("self_attention.dt_bias", names.dt_bias, Init::kTimeStepBias);
  norm_of("self_attention.out_norm.weight", names.norm, {net.value_head_dim}, Init::kOnes);
  linear("self_attention.out_proj", {{.foreign = names.out, .rows = h}}, v, false,
         Init::kNormalScaledByDepth, Shared::kColumns, {per_key_head(value_width)});
}

void TableWriter::mamba2() {
  const Mamba2& mamba = *spec_.mamba2;
  const ForeignNames::OfMamba& names = names_.mamba;
  const int64_t h = spec_.hidden_size, inner = mamba.inner_size;
  const int64_t groups = 2 * mamba.num_groups * mamba.state_size;
  const auto per_group = [&](int64_t size) {
    return CutSection{.pieces = mamba.num_groups, .width = size / mamba.num_groups};
  };
  const CutSection channels = per_group(inner), states = per_group(groups / 2);
  const CutSection heads = per_group(mamba.num_heads());
  const auto vector = [&](const char* name, const std::string& foreign_name, Init init) {
    whole(add(name, {mamba.num_heads()}, {.init = init, .cut = {heads}}),
          foreign_name.empty() ? "" : foreign(foreign_name));
  };
  linear("mixer.in_proj", {{.foreign = names.in, .rows = 2 * inner + groups + mamba.num_heads()}},
         h, false, Init::kNormal, Shared::kRows, {channels, channels, states, states, heads});
  convolution("mixer.conv1d", names.conv, {channels, states, states}, mamba.conv_kernel,
              mamba.conv_bias);
  vector("mixer.A_log", names.a_log, Init::kDecay);
  vector("mixer.D", names.d, Init::kOnes);
  vector("mixer.dt_bias", names.dt_bias, Init::kTimeStepBias);
  norm_of("mixer.norm.weight", names.norm, {inner}, Init::kOnes, {channels});
  linear("mixer.out_proj", {{.foreign = names.out, .rows = h}}, inner, false,
         Init::kNormalScaledByDepth, Shared::kColumns, {channels});
}

}  // namespace qianli::model
