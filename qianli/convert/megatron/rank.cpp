#include "qianli/convert/megatron/rank.h"

#include <fmt/core.h>

#include <algorithm>

namespace qianli::convert {

RankWriter::RankWriter(const model::ModelSpec& spec, const Table& table,
                       const MegatronLayout& layout, const MegatronRank& rank, size_t file,
                       std::vector<ForeignTensor>& tensors)
    : spec_(spec), table_(table), layout_(layout), rank_(rank), file_(file), tensors_(tensors) {
  for (size_t i = 0; i < table.size(); ++i) index_.emplace(table[i].name, i);
}

void RankWriter::write(const std::string& key, const plan::ChunkLayers& chunk) {
  key_ = key;
  if (chunk.embedding) embedding();
  for (const plan::ChunkLayers::Layer& place : chunk.layers) {
    const char* form = legacy() ? "language_model.encoder.layers.{}." : "decoder.layers.{}.";
    if (own_layers(spec_) == 2) {
      double_layer(fmt::format("decoder.layers.{}.", place.local), 2 * place.global);
      continue;
    }
    layer(fmt::format(fmt::runtime(form), place.local),
          fmt::format("decoder.layers.{}.", place.global));
  }
  if (chunk.loss) head(/*with_embedding_copy=*/!chunk.embedding);
}

void RankWriter::embedding() {
  const std::string prefix = legacy() ? "language_model.embedding." : "embedding.";
  vocabulary(prefix + "word_embeddings.weight", "embedding.word_embeddings.weight");
  for (const char* end : {"norm.weight", "norm.bias"}) {
    replicated(prefix + "word_embeddings." + end, std::string("embedding.word_embeddings.") + end);
  }
  replicated(prefix + "position_embeddings.weight", "embedding.position_embeddings.weight");
}

void RankWriter::head(bool with_embedding_copy) {
  std::string norm_name =
      legacy() ? "language_model.encoder.final_norm" : "decoder.final_layernorm";
  if (mindspeed() && spec_.mtp.num_layers > 0) norm_name = "final_layernorm";
  norm(norm_name, "decoder.final_layernorm");
  const std::string output = legacy() ? "language_model.output_layer" : "output_layer";
  if (!spec_.tie_word_embeddings) {
    vocabulary(output + ".weight", "output_layer.weight");
    vocabulary(output + ".bias", "output_layer.bias");
  } else if (with_embedding_copy) {
    vocabulary(output + ".weight", "embedding.word_embeddings.weight");
  }
  if (spec_.mtp.num_layers == 0) return;
  if (with_embedding_copy)
    vocabulary("embedding.word_embeddings.weight", "embedding.word_embeddings.weight");
  multi_token_prediction();
}

void RankWriter::multi_token_prediction() {
  for (int64_t depth = 0; depth < spec_.mtp.num_layers; ++depth) {
    const std::string name = fmt::format("mtp.layers.{}.", depth);
    replicated(name + "enorm.weight", name + "enorm.weight");
    replicated(name + "hnorm.weight", name + "hnorm.weight");
    cut_rows(name + "eh_proj.weight", name + "eh_proj.weight");
    layer(name + "transformer_layer.", name + "transformer_layer.");
    norm(mindspeed() ? fmt::format("mtp.final_layernorms.{}", depth) : name + "final_layernorm",
         name + "final_layernorm");
  }
}

void RankWriter::layer(const std::string& name, const std::string& parameters) {
  const bool latent = spec_.latent_attention.has_value();
  const bool moe = find(parameters + "mlp.router.weight") != nullptr;
  norm(legacy()                         ? name + "input_norm"
       : layout_.fused_norms && !latent ? name + "self_attention.linear_qkv.layer_norm"
                                        : name + "input_layernorm",
       parameters + "input_layernorm");
  attention(name + "self_attention.", parameters + "self_attention.");
  for (const char* end : {"A_log", "D", "dt_bias", "in_proj.weight", "conv1d.weight", "conv1d.bias",
                          "norm.weight", "out_proj.weight"}) {
    replicated(name + "mixer." + end, parameters + "mixer." + end);
  }
  norm(name + (mindspeed() ? "post_attn_norm" : "post_self_attn_layernorm"),
       parameters + "post_self_attn_layernorm");
  norm(legacy()                      ? name + "post_attention_norm"
       : layout_.fused_norms && !moe ? name + "mlp.linear_fc1.layer_norm"
                                     : name + "pre_mlp_layernorm",
       parameters + "pre_mlp_layernorm");
  norm(name + "post_mlp_layernorm", parameters + "post_mlp_layernorm");
  if (moe) {
    mixture(name + "mlp.", parameters + "mlp.");
    return;
  }
  dense_mlp(name + "mlp.", parameters + "mlp.");
}

// MindSpeed-LLM, mindspeed_llm/tasks/models/transformer/longcat_transformer_layer.py.
void RankWriter::double_layer(const std::string& name, int64_t first) {
  for (int64_t half = 0; half < 2; ++half) {
    const std::string parameters = fmt::format("decoder.layers.{}.", first + half);
    norm(fmt::format("{}input_layernorm_{}", name, half), parameters + "input_layernorm");
    attention(fmt::format("{}self_attention_{}.", name, half), parameters + "self_attention.");
    norm(fmt::format("{}pre_mlp_layernorm_{}", name, half), parameters + "pre_mlp_layernorm");
    dense_mlp(fmt::format("{}mlps_{}.", name, half), parameters + "mlp.");
    if (half == 0) mixture(name + "mlp.", parameters + "moe.");
  }
}

void RankWriter::dense_mlp(const std::string& to, const std::string& from) {
  const std::string fc1 = to + (legacy() ? "dense_h_to_4h" : "linear_fc1");
  const std::string fc2 = to + (legacy() ? "dense_4h_to_h" : "linear_fc2");
  for (const char* end : {".weight", ".bias"})
    cut_branches(fc1 + end, from + "linear_fc1" + end, spec_.ffn_hidden_size);
  cut_columns(fc2 + ".weight", from + "linear_fc2.weight");
  replicated(fc2 + ".bias", from + "linear_fc2.bias");
}

void RankWriter::attention(const std::string& to, const std::string& from) {
  const bool apart = mindspeed() && spec_.gated_delta_net.has_value();
  for (const char* end : {".weight", ".bias"}) {
    if (apart) {
      query_key_value_apart(to, from + "linear_qkv", end);
      continue;
    }
    query_key_value(to + (legacy() ? "query_key_value" : "linear_qkv") + end,
                    from + "linear_qkv" + end);
  }
  if (spec_.gated_delta_net) gated_delta_net(to, from);
  if (spec_.latent_attention) {
    latent_attention(to, from);
  } else {
    replicated(to + "q_layernorm.weight", from + "q_layernorm.weight");
    replicated(to + "k_layernorm.weight", from + "k_layernorm.weight");
  }
  cut_rows(to + "core_attention.softmax_offset", from + "core_attention.softmax_offset");
  const std::string proj = to + (legacy() ? "dense" : "linear_proj");
  cut_columns(proj + ".weight", from + "linear_proj.weight");
  replicated(proj + ".bias", from + "linear_proj.bias");
}

void RankWriter::latent_attention(const std::string& to, const std::string& from) {
  if (mindspeed()) {  // the down projections, or the queries' own, as one tensor that every rank
                      // holds
    std::vector<Part> parts;
    int64_t rows = 0;
    for (const char* name : {"linear_q_proj", "linear_q_down_proj", "linear_kv_down_proj"}) {
      const size_t* index = find(from + name + std::string(".weight"));
      if (!index) continue;
      const int64_t count = matrix_rows(table_[*index]);
      parts.push_back(rows_part(*index, 0, count, rows, 0));
      rows += count;
    }
    if (rows > 0) {
      for (Part& part : parts) part.foreign_rows = rows;
      add(to + "linear_qkv.weight", {rows, spec_.hidden_size}).parts = std::move(parts);
    }
  } else {
    cut_rows(to + "linear_q_proj.weight", from + "linear_q_proj.weight");
    replicated(to + "linear_q_down_proj.weight", from + "linear_q_down_proj.weight");
    replicated(to + "linear_kv_down_proj.weight", from + "linear_kv_down_proj.weight");
  }
  const bool fused = layout_.fused_norms && !mindspeed();
  replicated(to + (fused ? "linear_q_up_proj.layer_norm_weight" : "q_layernorm.weight"),
             from + "q_layernorm.weight");
  replicated(to + (fused ? "linear_kv_up_proj.layer_norm_weight" : "kv_layernorm.weight"),
             from + "kv_layernorm.weight");
  if (mindspeed() && layout_.split_latent_projections) {
    split_latent_projections(to, from);
  } else {
    cut_rows(to + "linear_q_up_proj.weight", from + "linear_q_up_proj.weight");
    cut_rows(to + "linear_kv_up_proj.weight", from + "linear_kv_up_proj.weight");
  }
  indexer(to, from + "indexer.");
}

// Megatron-core, core/transformer/experimental_attention_variant/dsa.py; MindSpeed-LLM,
// mindspeed_llm/tasks/checkpoint/models.py. Every rank holds all of it.
void RankWriter::indexer(const std::string& to, const std::string& from) {
  const std::string place = to + (mindspeed() ? "dsa_indexer." : "core_attention.indexer.");
  const std::string linear = mindspeed() ? "" : "linear_";
  for (const char* name : {"wq_b", "wk", "weights_proj"})
    replicated(place + linear + name + ".weight", from + "linear_" + name + ".weight");
  norm(place + "k_norm", from + "k_norm");
}

void RankWriter::split_latent_projections(const std::string& to, const std::string& from) {
  const model::LatentAttention& sizes = *spec_.latent_attention;
  const int64_t heads = spec_.num_attention_heads / layout_.tensor;
  // Of every head of `parameter`, `size` rows from `first` on, out of `all`.
  const auto split = [&](const char* name, const char* parameter, int64_t all, int64_t first,
                         int64_t size) {
    const size_t* index = find(from + parameter + std::string(".weight"));
    if (!index) return;
    ForeignTensor& tensor =
        add(to + name + std::string(".weight"), {heads * size, table_[*index].shape.back()});
    for (int64_t head = 0; head < heads; ++head) {
      tensor.parts.push_back(rows_part(*index, (rank_.tensor * heads + head) * all + first, size,
                                       head * size, heads * size));
    }
  };
  const int64_t key = sizes.qk_nope_head_dim + sizes.qk_rope_head_dim;
  const int64_t up = sizes.qk_nope_head_dim + sizes.v_head_dim;
  split("linear_qk_nope", "linear_q_up_proj", key, 0, sizes.qk_nope_head_dim);
  split("linear_qk_rope", "linear_q_up_proj", key, sizes.qk_nope_head_dim, sizes.qk_rope_head_dim);
  split("linear_kv_nope", "linear_kv_up_proj", up, 0, sizes.qk_nope_head_dim);
  split("linear_v", "linear_kv_up_proj", up, sizes.qk_nope_head_dim, sizes.v_head_dim);
}

void RankWriter::gated_delta_net(const std::string& to, const std::string& from) {
  const size_t* in = find(from + "in_proj.weight");
  if (!in) return;
  const model::GatedDeltaNet& sizes = *spec_.gated_delta_net;
  const int64_t wide = 2 * (sizes.key_size() + sizes.value_size()),
                narrow = 2 * sizes.num_value_heads;
  add(to + "in_proj_qkvz.weight", {wide, spec_.hidden_size}).parts = {
      rows_part(*in, 0, wide, 0, wide)};
  add(to + "in_proj_ba.weight", {narrow, spec_.hidden_size}).parts = {
      rows_part(*in, wide, narrow, 0, narrow)};
  for (const char* end : {"A_log", "dt_bias", "out_proj.weight"}) replicated(to + end, from + end);
  replicated(to + "norm.weight", from + "out_norm.weight");
  const size_t* conv = find(from + "conv1d.weight");
  const int64_t channels = table_[*conv].shape[0];
  add(to + "conv1d.weight", {channels, 1, sizes.conv_kernel}).parts = {
      rows_part(*conv, 0, channels, 0, channels)};
}

void RankWriter::mixture(const std::string& to, const std::string& from) {
  replicated(to + "router.weight", from + "router.weight");
  replicated(to + "router.bias", from + "router.bias");
  replicated(to + "router.expert_bias", from + "router.expert_bias");
  const int64_t spread = layout_.expert * (layout_.tensor_extends_expert ? layout_.tensor : 1);
  const int64_t block =
      layout_.tensor_extends_expert ? rank_.expert * layout_.tensor + rank_.tensor : rank_.expert;
  const int64_t count = spec_.moe->num_experts / spread;
  if (layout_.experts == ExpertStorage::kGrouped) {
    grouped_experts(to + "experts.", from + "experts.", block * count, count);
  } else {
    for (int64_t e = 0; e < count; ++e)
      expert(to + "experts.", from + "experts.", e, block * count + e);
  }
  cut_branches(to + "shared_experts.linear_fc1.weight", from + "shared_experts.linear_fc1.weight",
               spec_.moe->shared_ffn_hidden_size);
  cut_columns(to + "shared_experts.linear_fc2.weight", from + "shared_experts.linear_fc2.weight");
  replicated(to + "shared_experts.gate_weight", from + "shared_experts.gate_weight");
}

}  // namespace qianli::convert
